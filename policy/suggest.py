"""The line that would let a denied subject through.

Law: what is suggested parses, and in a policy with no deny rule for the subject it allows that subject and as little
else as one plain line can. "" where no line can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network

from policy import paths
from policy.names import InvalidNameError, Pattern, canonical
from policy.render import render
from policy.rules import ICMP, METHODS, SCHEME_PORTS, TCP, UDP, Flag, Kind, Rule, Url
from policy.values import Action, Flow, Owner, Query, Request, Subject

_PROTOS = {proto: protos for protos in (TCP, UDP, ICMP) for proto in protos}


def suggest(subject: Subject, _owner: Owner | None, names: Sequence[str]) -> str:
    """The one policy line that would allow `subject`, or "".

    A name is preferred to a bare address. The owner stays out of it: the paths of tools move with every update.
    """
    match subject:
        case Query():
            rule = _query(subject)
        case Flow():
            rule = _flow(subject, names)
        case Request():
            rule = _request(subject)
    return "" if rule is None else render(rule)


def suggest_passthrough(flow: Flow, names: Sequence[str]) -> str:
    """The line that has the proxy leave the flow's host alone, or "" where it has no name."""
    return _flagged(flow, names, Flag.PASSTHROUGH)


def suggest_no_sni(flow: Flow, names: Sequence[str]) -> str:
    """The line that lets clients of the flow's host name none, or "" where it has no name."""
    return _flagged(flow, names, Flag.NO_SNI)


def _flagged(flow: Flow, names: Sequence[str], flag: Flag) -> str:
    rule = _flow(flow, names)
    return render(replace(rule, flags=frozenset({flag}))) if rule is not None and rule.kind is Kind.HOST else ""


def _host(name: str) -> Pattern | None:
    """The name, if a rule can say it: its last label begins with a letter."""
    try:
        host = canonical(name)
    except InvalidNameError:
        return None
    return Pattern(host) if host.rpartition(".")[2][:1].isalpha() else None


def _query(query: Query) -> Rule | None:
    host = _host(query.name)
    return Rule(Action.ALLOW, Kind.HOST, host) if host else None


def _flow(flow: Flow, names: Sequence[str]) -> Rule | None:
    protos = _PROTOS.get(flow.proto)
    ports = None if protos == ICMP else frozenset({flow.dport})
    if protos is None or (ports and 0 in ports):
        return None
    host = next(filter(None, map(_host, names)), None)
    if host is None:
        return Rule(Action.ALLOW, Kind.ADDRESS, ip_network(flow.dst), protos, ports)
    return Rule(Action.ALLOW, Kind.HOST, host, protos, ports)


def _request(request: Request) -> Rule | None:
    host = _host(request.host.partition(":")[0])
    scheme = request.scheme.lower()
    try:
        path = paths.pattern(request.path)
    except paths.AmbiguousPathError:
        return None
    if host is None or scheme not in SCHEME_PORTS or not request.flow.dport:
        return None
    methods = frozenset({request.method}) if request.method in METHODS else None
    url = Url(scheme, path, methods)
    return Rule(Action.ALLOW, Kind.URL, host, TCP, frozenset({request.flow.dport}), url)
