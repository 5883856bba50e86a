"""What policy says of a subject.

Law: pure and total. The same policy, subject, owner and names give the same decision, nothing is raised, and every
path that no rule opened ends in DENY with the most precise reason there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from policy import paths
from policy.index import Index, Policy
from policy.names import InvalidNameError, canonical
from policy.rules import Flag, Kind, Rule
from policy.value import Value
from policy.values import (
    Action,
    Address,
    Flow,
    Owner,
    Proto,
    Query,
    Reason,
    Request,
    Seen,
    Spoken,
    Subject,
    address,
)

# How near a rule came to a subject it did not match; the last explains most.
_NEARNESS = {
    reason: rank
    for rank, reason in enumerate(
        (Reason.NO_RULE, Reason.NO_BINDING, Reason.PORT, Reason.OWNER, Reason.PATH, Reason.METHOD)
    )
}

# Where a client that names no host isn't just another protocol's: its server would choose the host for it.
NAMING_PORTS = frozenset({80, 443})

type Miss = Callable[[Rule], Reason | None]


class Decision(Value, frozen=True):
    """`rule` decided; where reason is PORT, OWNER, PATH or METHOD it is one that came nearest. `name` is the name that
    the rule was reached by, None for an address rule."""

    action: Action
    reason: Reason
    rule: Rule | None
    name: str | None


def decide(
    policy: Policy, subject: Subject, owner: Owner | None, names: Sequence[str], *, peek: bool = False
) -> Decision:
    """What may this subject do?

    `owner` is the process behind it, None if unknown. `names` are the canonical names bound to the destination now; a
    query has none and needs none. With `peek`, a TCP or UDP flow that a host rule allows is PEEK instead of ALLOW.
    """
    match subject:
        case Query():
            return resolvable(policy, subject.name, owner)
        case Flow():
            return _flow(policy, subject, owner, names, peek=peek)
        case Request():
            return _request(policy, subject, owner, names)


def resolvable(policy: Policy, asked: str, owner: Owner | None) -> Decision:
    """May a name be resolved? Any allow rule that names the host lets it; a URL deny is about requests and leaves names
    alone. Nothing else of a query has a say, so who asks often may remember the answer."""
    try:
        name = canonical(asked)
    except InvalidNameError:
        return _refusal(Reason.MALFORMED)
    for rule in policy.denies.by_name(name):
        if rule.kind is not Kind.URL and rule.applies(owner):
            return Decision(Action.DENY, Reason.DENY_RULE, rule, name)
    named = policy.allows.by_name(name)
    if applying := [rule for rule in named if rule.applies(owner)]:
        rule = applying[0] if len(applying) == 1 else max(applying, key=_rights)
        return Decision(Action.ALLOW, Reason.ALLOW_RULE, rule, name)
    if named:
        return Decision(Action.DENY, Reason.OWNER, named[0], name)
    return Decision(Action.DENY, Reason.NO_RULE, None, name)


def _rights(rule: Rule) -> tuple[bool, bool]:
    """Of the rules that let a name be resolved, the one that says most about its answers is given."""
    return Flag.PRIVATE in rule.flags, bool(rule.within)


@dataclass(frozen=True, slots=True)
class _Destination:
    """Where a subject goes, and `miss`: why a rule that names that place still doesn't match, None if it does.

    `path` is None for a flow, which has none that could be seen.
    """

    address: Address
    names: Sequence[str]
    miss: Miss
    path: str | None = None

    def candidates(self, index: Index) -> Iterator[tuple[Rule, str | None]]:
        for rule in index.by_address(self.address):
            yield rule, None
        for name in self.names:
            for rule in index.by_name(name) if self.path is None else index.by_url(name, self.path):
                yield rule, name

    def matches(self, index: Index) -> Iterator[tuple[Rule, str | None]]:
        return ((rule, name) for rule, name in self.candidates(index) if self.miss(rule) is None)

    def refusal(self, index: Index) -> Decision:
        """Deny, with the miss that came nearest."""
        nearest = _refusal(Reason.NO_RULE if self.names else Reason.NO_BINDING)
        sites = replace(self, path=None).candidates(index) if self.path else ()
        for rule, name in chain(self.candidates(index), sites):
            reason = self.miss(rule)
            if reason is not None and _NEARNESS[reason] > _NEARNESS[nearest.reason]:
                nearest = Decision(Action.DENY, reason, rule, name)
        return nearest


def _flow(policy: Policy, flow: Flow, owner: Owner | None, names: Sequence[str], *, peek: bool) -> Decision:
    """Deny wins; then any URL rule has the flow looked into; then address and host rules open it."""
    destination = _Destination(flow.dst, names, lambda rule: _flow_miss(rule, flow, owner))
    looks = opens = None
    for rule, name in destination.matches(policy.denies):
        if rule.kind is not Kind.URL:
            return Decision(Action.DENY, Reason.DENY_RULE, rule, name)
        if not _passed_through(policy, flow, name):
            looks = Decision(Action.INSPECT, Reason.ALLOW_RULE, rule, name)
    for rule, name in destination.matches(policy.allows):
        if rule.kind is not Kind.URL:
            opens = opens or Decision(_opening(rule, flow, peek=peek), Reason.ALLOW_RULE, rule, name)
        elif not _passed_through(policy, flow, name):
            return Decision(Action.INSPECT, Reason.ALLOW_RULE, rule, name)
    if opens is None:
        return destination.refusal(policy.allows)
    return looks or opens


def _opening(rule: Rule, flow: Flow, *, peek: bool) -> Action:
    speaks = flow.proto in (Proto.TCP, Proto.UDP)
    return Action.PEEK if peek and rule.kind is Kind.HOST and speaks else Action.ALLOW


def _flow_miss(rule: Rule, flow: Flow, owner: Owner | None) -> Reason | None:
    if not rule.covers(flow.proto, flow.dport):
        return Reason.PORT
    if rule.within and not any(flow.dst in network for network in rule.within):
        return Reason.NO_BINDING
    return None if rule.applies(owner) else Reason.OWNER


def _passed_through(policy: Policy, flow: Flow, name: str | None) -> bool:
    """Does a rule forbid decrypting this name? Whoever speaks: the flag is about the host."""
    return name is not None and any(
        Flag.PASSTHROUGH in rule.flags and rule.covers(flow.proto, flow.dport) for rule in policy.allows.by_name(name)
    )


def unverified(policy: Policy, flow: Flow, name: str) -> bool:
    """May the proxy take any certificate for this host's? Only where a rule about it says `insecure`."""
    return any(
        Flag.INSECURE in rule.flags and rule.covers(flow.proto, flow.dport) for rule in policy.allows.by_name(name)
    )


def greeted(policy: Policy, flow: Flow, owner: Owner | None, names: Sequence[str], name: str | None) -> Decision:
    """For a flow that was INSPECT, now that its client wants TLS with the host `name`: INSPECT, ALLOW (as it is, not
    looked into) or DENY. `names` are those of the destination.

    No name is no way around what a URL rule says of one of them: only an address rule lets it through.
    """
    decision = decide(policy, flow, owner, tuple(one for one in names if one == name))
    if name in names or decision.action is Action.ALLOW:
        return decision
    if name is None:
        return Decision(Action.DENY, Reason.NO_NAME, None, None)
    elsewhere = decide(policy, flow, owner, (name,))
    return elsewhere if elsewhere.action is Action.DENY else Decision(Action.DENY, Reason.NAME, elsewhere.rule, name)


def identified(policy: Policy, flow: Flow, owner: Owner | None, names: Sequence[str], seen: Seen) -> Decision:
    """ALLOW or DENY for a flow that was PEEK, now that its client has spoken. `names` are those of the destination.

    A name must be allowed, and one of `names`. None at all will do where a rule says `no-sni`, or where the protocol
    has no place for one and the port isn't one of those that serve many hosts.
    """
    if seen.name is not None:
        decision = decide(policy, flow, owner, (seen.name,))
        if decision.action is Action.DENY or seen.name in names:
            return _opened(decision)
        return Decision(Action.DENY, Reason.NAME, decision.rule, seen.name)
    decision = decide(policy, flow, owner, names)
    if decision.action is not Action.ALLOW or (seen.protocol is Spoken.OTHER and flow.dport not in NAMING_PORTS):
        return _opened(decision)
    destination = _Destination(flow.dst, names, lambda rule: _flow_miss(rule, flow, owner))
    for rule, name in destination.matches(policy.allows):
        if Flag.NO_SNI in rule.flags:
            return Decision(Action.ALLOW, Reason.ALLOW_RULE, rule, name)
    return Decision(Action.DENY, Reason.NO_NAME, decision.rule, decision.name)


def _opened(decision: Decision) -> Decision:
    """A flow that is open can't be sent to the proxy any more."""
    return decision.but(action=Action.DENY, reason=Reason.NAME) if decision.action is Action.INSPECT else decision


def _request(policy: Policy, request: Request, owner: Owner | None, names: Sequence[str]) -> Decision:
    """The host must be a name bound to the address, or the address itself; then as for a flow, down to the path.

    A path that servers read in two ways is denied by a rule against either, and allowed if both are.
    """
    try:
        host = _host(request)
        readings = paths.readings(paths.canonical(request.path))
    except ValueError:
        return _refusal(Reason.MALFORMED)
    if host not in {request.flow.dst, *names}:
        return _refusal(Reason.NO_BINDING)
    bound = (host,) if isinstance(host, str) else ()
    read = [
        _Destination(request.flow.dst, bound, partial(_request_miss, request=request, path=path, owner=owner), path)
        for path in readings
    ]
    for rule, name in chain.from_iterable(destination.matches(policy.denies) for destination in read):
        return Decision(Action.DENY, Reason.DENY_RULE, rule, name)
    for rule, name in read[0].matches(policy.allows):
        means_it = rule.url is not None and rule.url.path.has_parameters
        if means_it or all(any(destination.matches(policy.allows)) for destination in read[1:]):
            return Decision(Action.ALLOW, Reason.ALLOW_RULE, rule, name)
    return read[-1].refusal(policy.allows)


def _request_miss(rule: Rule, request: Request, path: str, owner: Owner | None) -> Reason | None:
    missed = _flow_miss(rule, request.flow, owner)
    if missed is not None or rule.url is None:
        return missed
    if rule.url.scheme != request.scheme.lower():
        return Reason.PORT
    if not rule.url.path.matches(path):
        return Reason.PATH
    return None if rule.url.methods is None or request.method in rule.url.methods else Reason.METHOD


def _host(request: Request) -> Address | str:
    """The request's host without its port, which must be the flow's own (RFC 9110 section 4.2.3: no userinfo here).

    Raises ValueError.
    """
    host, bracket, rest = request.host.rpartition("]")
    if not bracket:
        host, colon, port = request.host.partition(":")
        rest = colon + port
    if rest not in {"", f":{request.flow.dport}"}:
        raise ValueError(f"the host's port is not the connection's: {request.host!r}")
    if bracket or host[-1:].isdigit():
        with suppress(ValueError):
            return address(host.removeprefix("["))
    return canonical(host)


def _refusal(reason: Reason) -> Decision:
    return Decision(Action.DENY, reason, None, None)
