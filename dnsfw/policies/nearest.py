"""The rules that came near a subject without deciding on it, and why each did not.

Law: a rule is judged by `decide` alone, as a policy of its own, so that what is told here is what happens. The words
are ours; names that are merely alike are found here too, for people mistype.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from ipaddress import ip_network
from typing import NamedTuple

from dnsfw.policies.asked import Asked
from policy import (
    Action,
    Decision,
    Flow,
    Key,
    Kind,
    Owner,
    Policy,
    Proto,
    Query,
    Reason,
    Request,
    Rule,
    Subject,
    decide,
)
from policy.names import Pattern
from policy.paths import AmbiguousPathError, canonical
from policy.render import render_attribute

SHOWN = 5
_ALIKE = 0.85
_RANKS = {Reason.NO_BINDING: 2.0, Reason.PORT: 3.0, Reason.OWNER: 4.0, Reason.PATH: 5.0, Reason.METHOD: 6.0}
_OUTVOTED = 7.0


class Near(NamedTuple):
    """A rule, how near it came (more is nearer), and why it did not match."""

    rule: Rule
    rank: float
    why: str


def nearest(policy: Policy, asked: Asked, decision: Decision) -> list[Near]:
    """At most SHOWN rules, the nearest first; those that rank the same as they stand in the policy."""
    found = [
        near for rule in policy.rules if rule is not decision.rule or _missed(decision) for near in _near(rule, asked)
    ]
    return sorted(found, key=lambda near: -near.rank)[:SHOWN]


def _missed(decision: Decision) -> bool:
    """Is the decision's rule one that came nearest, instead of one that decided?"""
    return decision.reason not in {Reason.ALLOW_RULE, Reason.DENY_RULE}


def _near(rule: Rule, asked: Asked) -> Iterator[Near]:
    probe = replace(rule, action=Action.ALLOW)  # how a deny rule missed is told in the same words
    alone = decide(Policy((probe,)), asked.subject, asked.owner, asked.names)
    if alone.action is not Action.DENY:
        if rule.action is Action.ALLOW:
            yield Near(rule, _OUTVOTED, "allows it by itself")
        elif asked.owner is None and rule.who:
            yield Near(rule, _OUTVOTED, "denies it to a process that isn't known")
    elif alone.rule is not None:
        yield Near(rule, _RANKS[alone.reason], _why(rule, alone.reason, asked))
    elif alone.reason is not Reason.MALFORMED:
        yield from _elsewhere(rule, asked)


def _why(rule: Rule, reason: Reason, asked: Asked) -> str:
    match reason:
        case Reason.OWNER:
            return _owner(rule, asked.owner)
        case Reason.PORT:
            return _other_port(rule, asked.subject)
        case Reason.PATH if isinstance(asked.subject, Request) and rule.url is not None:
            return f"its path is {rule.url.path}, not {asked.subject.path}"
        case Reason.METHOD if isinstance(asked.subject, Request) and rule.url is not None:
            return f"its methods are {'|'.join(sorted(rule.url.methods or ()))}, not {asked.subject.method}"
        case _:
            return "the address is not within the rule's networks, so it would not be bound to the name"


def _owner(rule: Rule, owner: Owner | None) -> str:
    """What the rule wants of the process, and what that is."""
    if owner is None:
        return f"it wants {' '.join(map(render_attribute, rule.who))}, and nothing is known of the process"
    return "; ".join(
        f"it wants {render_attribute(attribute)}, the process has {_fact(attribute.key, owner) or 'none'}"
        for attribute in rule.who
        if not attribute.holds(owner)
    )


def _fact(key: Key, owner: Owner) -> str | None:
    match key:
        case Key.ARG:
            return " ".join(owner.argv[1:])
        case Key.USER:
            return str(owner.uid) if owner.uid >= 0 else None
        case Key.CGROUP:
            return "a container's" if owner.container else owner.cgroup
        case Key.EXE | Key.IMAGE | Key.STEP | Key.ACTION:
            fact: str | None = getattr(owner, key)
            return fact


def _other_port(rule: Rule, subject: Subject) -> str:
    if rule.kind is Kind.DNS:
        return "it lets the name be resolved and gives no right to connect"
    if isinstance(subject, Request):
        if rule.url is not None and rule.url.scheme != subject.scheme.lower():
            return f"it is about {rule.url.scheme}, not {subject.scheme.lower()}"
        flow = subject.flow
    elif isinstance(subject, Flow):
        flow = subject
    else:
        return "it is about no name"
    return f"it is about {_transport(rule)}, not {_spoken(flow)}"


def _transport(rule: Rule) -> str:
    protos = "any protocol" if rule.protos is None else "/".join(sorted({_proto(proto) for proto in rule.protos}))
    if rule.protos == frozenset({Proto.ICMP, Proto.ICMPV6}):
        return protos
    ports = "any port" if rule.ports is None else f"port {'|'.join(map(str, sorted(rule.ports)))}"
    return f"{protos} {ports}"


def _spoken(flow: Flow) -> str:
    return f"{_proto(flow.proto)} port {flow.dport}" if flow.dport else _proto(flow.proto)


def _proto(number: int) -> str:
    return "icmp" if number == Proto.ICMPV6 else Proto(number).name.lower()


def _elsewhere(rule: Rule, asked: Asked) -> Iterator[Near]:
    """Rules that name another place, if it is one that might be confused with the subject's."""
    place = rule.destination
    names = (asked.subject.name,) if isinstance(asked.subject, Query) else asked.names
    if isinstance(place, Pattern):
        for name in names:
            if why := _other_name(place, name):
                yield Near(rule, 1.0, why)
            elif (alike := SequenceMatcher(None, place.base, name).ratio()) >= _ALIKE:
                yield Near(rule, alike, f"it names {place}: a slip of the pen?")
    elif not isinstance(asked.subject, Query):
        flow = asked.subject if isinstance(asked.subject, Flow) else asked.subject.flow
        around = ip_network((int(flow.dst), 16 if flow.dst.version == 4 else 32), strict=False)
        if place.version == around.version and place.network_address in around:
            yield Near(rule, 1.0, f"{flow.dst} is not in {place}")


def _other_name(place: Pattern, name: str) -> str:
    """Why a pattern around the same domain is not about this name; "" if it is somewhere else."""
    if name == place.base:
        return f"it is about names below {place.base}, not that name itself"
    if not name.endswith(f".{place.base}") or "." not in place.base:
        return f"it names {place}, further down" if place.base.endswith(f".{name}") and "." in name else ""
    if not (place.deep or place.label):
        return "it is about this name alone, not what stands below it"
    if place.label and not place.deep and "." in name[: -len(place.base) - 1]:
        return f"it is about exactly one label before {place.base}"
    return f"it wants a label like {place.label} right before {place.base}"


def unreadable(asked: Asked) -> str:
    """What is malformed about the subject, as far as a path can tell."""
    if isinstance(asked.subject, Request):
        try:
            canonical(asked.subject.path)
        except AmbiguousPathError as error:
            return str(error)
    return ""
