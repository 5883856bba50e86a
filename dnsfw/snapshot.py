"""What the next engine is to know of this one's: bindings and counts.

Law: writes what changes as it changes, so that a death at any moment loses none of it, and checks what it reads as if
a stranger had written it. What is missing is on the safe side: no binding, no flow.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from dnsfw.sharedlog import SharedLog
from dnsfw.tally import Tally
from policy import Address, Bindings, address
from policy.names import canonical

_MOST = 16  # addresses in one record
_KEPT = 4_096  # addresses that a full log is begun again with: nothing is answered meanwhile
_LONGEST = 86_400.0  # seconds: no binding lives longer than a day
_ENTRY = struct.Struct("=dB")  # until when, in seconds of the monotonic clock (one for all processes); address's size

type Answers = Sequence[tuple[Address, float]]


class Snapshot:
    """Restores `bindings` and `tally` from `log`, then keeps them there. `forgotten` counts what found no room when
    all was written last: this engine knows it, the next one won't."""

    def __init__(self, log: SharedLog, bindings: Bindings, tally: Tally, clock: Callable[[], float]) -> None:
        self.forgotten = 0
        self._log = log
        self._bindings = bindings
        self._tally = tally
        now = clock()
        for body in log.read():
            name, answers = _decoded(body, now)
            bindings.bind(name, answers, now)
        tally.allowed, tally.denied, tally.faults = log.numbers[:3]
        self._rewrite(now)

    def bind(self, name: str, answers: Answers, now: float) -> None:
        """As Bindings.bind."""
        if not self._bindings.bind(name, answers, now):
            return  # an answer that was repeated: nothing new
        for some in _slices(answers):
            if not self._log.append(_encoded(name, [(each, now + ttl) for each, ttl in some])):
                self._rewrite(now)
                return

    def count(self) -> None:
        """The tally has changed."""
        numbers, tally = self._log.numbers, self._tally
        numbers[0], numbers[1], numbers[2] = tally.allowed, tally.denied, tally.faults

    def _rewrite(self, now: float) -> None:
        live = [_encoded(each.name, [(each.address, each.expires_at)]) for each in self._bindings.live(now, _KEPT)]
        self.forgotten = max(0, len(self._bindings) - _KEPT) + self._log.rewrite(reversed(live))  # those in use first


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
