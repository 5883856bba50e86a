"""What the next engine is to know of this one's: bindings, counts, and what wildcards have cost.

Law: writes what changes as it changes, so that a death at any moment loses none of it, and checks what it reads as if
a stranger had written it. What is missing is on the safe side: no binding, no flow; a name is paid for once more.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dnsfw.journal.records import Entry
from dnsfw.journal.shared import SharedLog
from dnsfw.journal.tally import Tally
from policy import Action, Address, Bindings, Budgets, Policy, Spent, address
from policy.names import Pattern, canonical

_MOST = 16  # addresses in one record
_KEPT = 4_096  # addresses that a full log is begun again with: nothing is answered meanwhile
_LONGEST = 86_400.0  # seconds: no binding lives longer than a day
_ENTRY = struct.Struct("=dB")  # until when, in seconds of the monotonic clock (one for all processes); address's size
_COST = 0xFF  # begins a record of a wildcard's cost; a binding's begins with its name's length, at most 253
_COSTS = struct.Struct("=BIIII")

type Answers = Sequence[tuple[Address, float]]


@dataclass(frozen=True, slots=True)
class Known:
    """What an engine knows: restored, and kept from then on."""

    bindings: Bindings
    tally: Tally
    budgets: Budgets


class Snapshot:
    """Restores `known` from `log`, then keeps it there. `forgotten` counts what found no room when all was written
    last: this engine knows it, the next one won't."""

    def __init__(self, log: SharedLog, known: Known, policy: Policy, clock: Callable[[], float]) -> None:
        self.forgotten = 0
        self._log = log
        self._known = known
        self._clock = clock
        wildcards = {str(rule.destination): rule.destination for rule in policy.rules}
        now = clock()
        for body in log.read():
            if body[0] == _COST:
                self._restore_cost(body, wildcards, now)
            else:
                name, answers = _decoded(body, now)
                known.bindings.bind(name, answers, now)
        known.tally.allowed, known.tally.denied, known.tally.faults = log.numbers[:3]
        self._rewrite(now)

    def bind(self, name: str, answers: Answers, now: float) -> None:
        """As Bindings.bind."""
        if not self._known.bindings.bind(name, answers, now):
            return  # an answer that was repeated: nothing new
        for some in _slices(answers):
            if not self._log.append(_encoded(name, [(each, now + ttl) for each, ttl in some])):
                self._rewrite(now)
                return

    def take(self, entry: Entry) -> None:
        """A decision that the tally has counted."""
        numbers, tally = self._log.numbers, self._known.tally
        numbers[0], numbers[1], numbers[2] = tally.allowed, tally.denied, tally.faults
        rule = entry.decision.rule
        if entry.spent is None or entry.decision.action is not Action.ALLOW or rule is None:
            return  # nothing was paid
        if not self._log.append(_cost(rule.destination, entry.spent)):
            self._rewrite(self._clock())

    def _rewrite(self, now: float) -> None:
        bindings = self._known.bindings
        costs = [_cost(host, spent) for host, spent in self._known.budgets.spent().items()]
        live = [_encoded(each.name, [(each.address, each.expires_at)]) for each in bindings.live(now, _KEPT)]
        lost = self._log.rewrite([*costs, *reversed(live)])  # of bindings, those that hold longest first
        self.forgotten = max(0, len(bindings) - _KEPT) + lost

    def _restore_cost(self, body: bytes, wildcards: Mapping[str, object], now: float) -> None:
        """The last one of each wildcard counts, if the policy still has it."""
        try:
            _, names, octets, names_job, octets_job = _COSTS.unpack_from(body)
            host = wildcards.get(body[_COSTS.size :].decode("ascii"))
        except (struct.error, ValueError):
            return
        if isinstance(host, Pattern):
            self._known.budgets.restore(host, Spent(names, octets, names_job, octets_job, ""), now)


def _cost(host: object, spent: Spent) -> bytes:
    costs = (spent.names_minute, spent.octets_minute, spent.names_job, spent.octets_job)
    return _COSTS.pack(_COST, *costs) + str(host).encode("ascii")


def _slices(answers: Answers) -> Iterator[Answers]:
    return (answers[at : at + _MOST] for at in range(0, len(answers), _MOST))


def _encoded(name: str, until: Sequence[tuple[Address, float]]) -> bytes:
    raw = name.encode("ascii")
    entries = (_ENTRY.pack(end, len(each.packed)) + each.packed for each, end in until)
    return bytes([len(raw)]) + raw + b"".join(entries)


def _decoded(body: bytes, now: float) -> tuple[str, list[tuple[Address, float]]]:
    """A name and its addresses' times to live; none where the record can't be one of ours."""
    answers: list[tuple[Address, float]] = []
    at = 1 + body[0]
    try:
        name = body[1:at].decode("ascii")
        while at < len(body):
            until, size = _ENTRY.unpack_from(body, at)
            at += _ENTRY.size
            packed = body[at : at + size]
            if len(packed) != size:
                return "", []
            answers.append((address(packed), min(until - now, _LONGEST)))
            at += size
        return (name, answers) if canonical(name) == name else ("", [])
    except (ValueError, struct.error):  # InvalidNameError among them
        return "", []
