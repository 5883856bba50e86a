"""The gate: every query and every flow is judged here and nowhere else.

Law: attach owner and bound names to a subject, ask policy, record the answer. The only code that knows audit mode.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple

from dnsfw.engine.admitted import SILENCE, Admission, Admitted
from dnsfw.journal.records import Entry
from policy import (
    Action,
    Address,
    Bindings,
    Budgets,
    Decision,
    Flow,
    Owner,
    Policy,
    Proto,
    Query,
    Reason,
    Request,
    Seen,
    Spoken,
    decide,
    greeted,
    identified,
    resolvable,
    unpacked,
)
from policy.value import Value
from resolver.judge import Ruling

_WITHOUT_LIFE = (Proto.UDP, Proto.ICMP, Proto.ICMPV6)  # no packet says that a flow of these begins, or is over
_PLACES = 1_024  # that flows were opened to, and by whom
_REMEMBERED = 4_096  # decisions about names: pure, and asked for again with every cached answer

type OwnerOf = Callable[[Flow], Owner | None]


class Connection(Value, frozen=True):
    """A connection that is looked into, with what was known when it was opened: its owner, until another process speaks
    first on it, and for its life the names bound to its destination; with TLS to the proxy, the one that its client
    named."""

    flow: Flow
    owner: Owner | None
    names: tuple[str, ...]


class Past(NamedTuple):
    """What a flow was let through as; where that isn't `certain`, what is known of it now."""

    owner: Owner | None
    names: tuple[str, ...]
    certain: bool


def _never(*_: object) -> bool:
    return False


@dataclass(slots=True)
class Gate:
    """`owner_of` names the process behind a flow, `record` takes what was decided, `clock` is monotonic seconds.
    `inspects` says whether a proxy is at work, `awaits` whether more will be known of an owner in a moment."""

    policy: Policy
    bindings: Bindings
    owner_of: OwnerOf
    record: Callable[[Entry], None]
    clock: Callable[[], float]
    audit: bool = False
    budgets: Budgets = field(default_factory=Budgets)
    admitted: Admitted = field(default_factory=Admitted)
    inspects: Callable[[], bool] = field(default=_never)
    awaits: Callable[[Owner], bool] = field(default=_never)
    _resolvable: Callable[[str, Owner | None], Decision] = field(init=False, repr=False)
    _opened: dict[tuple[object, ...], tuple[Decision, Address, Owner | None]] = field(init=False, repr=False)
    _denies_owners: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.adopt(self.policy)

    def adopt(self, policy: Policy) -> None:
        """Judge by this one from now on; nothing decided by another is remembered."""
        self.policy = policy
        self._resolvable = lru_cache(_REMEMBERED)(partial(resolvable, policy))
        self._opened = {}
        self._denies_owners = any(rule.who and rule.action is Action.DENY for rule in policy.rules)

    def query(self, query: Query) -> Decision:
        """May this name be resolved?"""
        return self.resolve(query, self.owner_of(query.client)).decision

    def resolve(self, query: Query, owner: Owner | None) -> Ruling:
        """The same for a known owner. A question that nothing was spent on may be repeated: it never costs anything
        again, and all else that decides are the policy, the name and the owner."""
        decision, spent = self.budgets.hold(query, self._resolvable(query.name, owner), self.clock())
        entry = Entry(query, decision, owner, (), spent=spent)
        settled = self._settle(entry)
        if settled.action is Action.DENY and decision.reason is Reason.OWNER and owner and self.awaits(owner):
            return Ruling(settled, silent=True)
        return Ruling(settled, partial(self._again, entry) if spent is None else None)

    def open(self, flow: Flow) -> tuple[Action, Connection]:
        """May this flow start? PEEK: it may, and what its client says first is judged next. A connection is recorded in
        between, since its first packet leaves; a datagram isn't, since nothing leaves before it was judged."""
        owner, now = self.owner_of(flow), self.clock()
        if flow.proto == Proto.TCP:
            self.admitted.forget(flow)
        names = self._names(flow, owner, now)
        connection = Connection(flow, owner, names)
        decision = self._opening(flow, owner, names)
        if decision.action is Action.INSPECT and not self.inspects():
            decision = decision.but(action=Action.DENY, reason=Reason.PROXY)
        if decision.action is Action.PEEK and flow.proto == Proto.UDP:
            return Action.PEEK, connection
        return self._admit(Entry(flow, decision, owner, names), connection), connection

    def _opening(self, flow: Flow, owner: Owner | None, names: tuple[str, ...]) -> Decision:
        """As `decide`, remembered: where a flow comes from has no say in it. A program opens many to few places, and
        addresses and owners are the same objects then; they hash slowly, and what is remembered keeps them alive."""
        key = (flow.proto, flow.dport, id(flow.dst), id(owner), names)
        known = self._opened.get(key)
        if known is None:
            if len(self._opened) >= _PLACES:
                self._opened.clear()
            known = self._opened[key] = decide(self.policy, flow, owner, names, peek=True), flow.dst, owner
        return known[0]

    def named(self, connection: Connection, seen: Seen) -> Action:
        """May it go on, now that its client has spoken? Who speaks need not be who connected; who sent a flow's first
        datagram is known."""
        flow, names = connection.flow, self._known(connection, seen.name)
        owner = self.owner_of(flow) if flow.proto == Proto.TCP else connection.owner
        entry = Entry(flow, identified(self.policy, flow, owner, names, seen), owner, names, seen=seen)
        said = names if seen.name is None else (seen.name,)
        return self._admit(entry, Connection(flow, owner, said))

    def hinted(self, connection: Connection, seen: Seen) -> bool:
        """Would it be allowed, if that were all? Nothing is decided, so nothing recorded."""
        known = self._known(connection, seen.name)
        return identified(self.policy, connection.flow, connection.owner, known, seen).action is Action.ALLOW

    def unread(self, connection: Connection, problem: str) -> Action:
        """Deny it for words that can't be read, or did not come in time."""
        return self.failed(connection, Reason.MALFORMED, problem).decision.action

    def era(self) -> Policy:
        """What was judged by another policy is to be judged again."""
        return self.policy

    def _known(self, connection: Connection, name: str | None) -> tuple[str, ...]:
        """Names that it was opened for, which may have run out since; if what was said isn't one of them, also those
        that its far end has got since."""
        if name in connection.names:
            return connection.names
        return tuple(dict.fromkeys((*connection.names, *self.bindings.names(connection.flow.dst, self.clock()))))

    def _admit(self, entry: Entry, connection: Connection) -> Action:
        """Record what was decided, and remember as what a flow was let through."""
        decision = self._settle(entry)
        flow = connection.flow
        if decision.action not in (Action.DENY, Action.PEEK):
            inspected = decision.action is Action.INSPECT
            self.admitted.note(flow, Admission(connection.owner, connection.names, self.clock(), inspected))
        if flow.proto in _WITHOUT_LIFE and decision.action is Action.ALLOW and self._depends_on_owner(decision):
            return Action.ONCE
        return decision.action

    def _depends_on_owner(self, decision: Decision) -> bool:
        """A lease is for a pair of addresses and ports, from which any process may send next (SO_REUSEADDR); so is what
        conntrack takes for one series of echoes."""
        return self._denies_owners or (decision.rule is not None and bool(decision.rule.who))

    def _names(self, flow: Flow, owner: Owner | None, now: float) -> tuple[str, ...]:
        """Those bound to its destination. Where a UDP flow's lease has run out and not the flow, its own hold on."""
        bound = self.bindings.names(flow.dst, now)
        known = self.admitted.of(flow) if flow.proto == Proto.UDP else None
        if known is None or known.owner != owner or now - known.at > SILENCE:
            return bound
        return tuple(dict.fromkeys((*known.names, *bound)))

    def past(self, packed: bytes) -> Past:
        """Of the flow whose Flow.packed this is."""
        known = self.admitted.at(packed)
        if known is not None:
            return Past(known.owner, known.names, certain=True)
        flow = unpacked(packed)
        return Past(self.owner_of(flow), self.bindings.names(flow.dst, self.clock()), certain=False)

    def again(self, flow: Flow, *, spoken: bool = True) -> Action:
        """May this flow, let through before, go on?"""
        return self.all_again(flow, self.past(flow.packed), spoken=spoken)

    def all_again(self, flow: Flow, past: Past, *, spoken: bool, times: int = 1) -> Action:
        """May it, and others with the same past that differ in their source port alone, `times` in all? ALLOW says so,
        INSPECT if the proxy has them, and PEEK where their clients haven't `spoken`. Recorded only where a rule or the
        lack of one ends them."""
        decision = decide(self.policy, flow, past.owner, past.names, peek=not past.certain)
        if decision.action is Action.PEEK and spoken:  # which of those names it was opened for can't be told any more
            decision = Decision(Action.DENY, Reason.NO_BINDING, decision.rule, None)
        if decision.action is Action.DENY:
            return self._settle(Entry(flow, decision, past.owner, past.names, times=times)).action
        return decision.action

    def accepted(self, flow: Flow) -> Connection:
        """What is known of a connection that the proxy takes."""
        past = self.past(flow.packed)
        return Connection(flow, past.owner, past.names)

    def sent_to_proxy(self, flow: Flow) -> bool:
        """Was it, by us?"""
        known = self.admitted.of(flow)
        return known is not None and known.inspected

    def greeted(self, connection: Connection, name: str | None) -> tuple[Entry, Connection]:
        """What becomes of a connection of the proxy's whose client wants TLS with this host; from here on it is that
        host's alone. Where its requests are to be looked into, there is nothing to record yet."""
        flow, owner, names = connection.flow, connection.owner, self._known(connection, name)
        theirs = connection.but(names=tuple(one for one in names if one == name))
        decision = greeted(self.policy, flow, owner, names, name)
        if decision.action is not Action.DENY:
            self.admitted.note(flow, Admission(owner, theirs.names, self.clock(), self.sent_to_proxy(flow)))
        entry = Entry(flow, decision, owner, names, seen=Seen(Spoken.TLS, name))
        return (entry if decision.action is Action.INSPECT else self._settled(entry)), theirs

    def request(self, connection: Connection, request: Request) -> Entry:
        """May this request pass?"""
        decision = decide(self.policy, request, connection.owner, connection.names)
        return self._settled(Entry(request, decision, connection.owner, connection.names))

    def failed(self, connection: Connection, reason: Reason, detail: str) -> Entry:
        """Deny what the proxy found, where no rule has a say."""
        decision = Decision(Action.DENY, reason, None, None)
        return self._settled(Entry(connection.flow, decision, connection.owner, connection.names, fault=detail))

    def unreadable(self, error: Exception) -> None:
        """Record a packet that could not be parsed, and was denied for that."""
        self.record(Entry(None, Decision(Action.DENY, Reason.MALFORMED, None, None), None, (), fault=str(error)))

    def fault(self, error: BaseException, subject: Query | Flow | None) -> None:
        """Record that judging or serving `subject` broke; the caller has denied it already."""
        decision = Decision(Action.DENY, Reason.FAULT, None, None)
        self.record(Entry(subject, decision, None, (), fault=f"{type(error).__name__}: {error}"))

    def escaped(self, _loop: AbstractEventLoop, context: dict[str, Any]) -> None:
        """Record what broke outside any subject: an event loop's exception handler."""
        self.fault(context.get("exception") or RuntimeError(context["message"]), None)

    def _settled(self, entry: Entry) -> Entry:
        return entry.but(decision=self._settle(entry))

    def _again(self, entry: Entry, times: int) -> None:
        self.record(entry.but(times=times))

    def _settle(self, entry: Entry) -> Decision:
        """Record what was decided; what then holds."""
        self.record(entry)
        decision = entry.decision
        if self.audit and decision.action is Action.DENY:
            return decision.but(action=Action.ALLOW)
        return decision
