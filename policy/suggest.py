"""The line that would let a denied subject through.

Law: what is suggested parses, and added to a policy that has no deny rule for the subject it allows that subject and as
little else as one plain line can. "" where no line can.
"""

from __future__ import annotations

from collections.abc import Sequence

from policy import paths
from policy.names import InvalidNameError, canonical
from policy.rules import METHODS, SCHEME_PORTS
from policy.values import Flow, Owner, Proto, Query, Request, Subject

_ICMP = (Proto.ICMP, Proto.ICMPV6)


def suggest(subject: Subject, _owner: Owner | None, names: Sequence[str]) -> str:
    """The one policy line that would allow `subject`, or "".

    A name is preferred to a bare address. The owner stays out of it: paths of tools move with every update.
    """
    match subject:
        case Query():
            return _host(subject.name)
        case Flow():
            return _flow(subject, names)
        case Request():
            return _request(subject)


def _host(name: str) -> str:
    """The name if a host rule can say it: its last label begins with a letter."""
    try:
        host = canonical(name)
    except InvalidNameError:
        return ""
    return host if host.rpartition(".")[2][:1].isalpha() else ""


def _flow(flow: Flow, names: Sequence[str]) -> str:
    host = next(filter(None, map(_host, names)), "")
    if not host:
        host = str(flow.dst)
        if ":" in host:
            host = f"[{host}]"
    if flow.proto in _ICMP:
        return f"{host}/icmp"
    if flow.proto == Proto.UDP:
        return f"{host}:{flow.dport}/udp"
    if flow.proto == Proto.TCP:
        return host if flow.dport == 443 else f"{host}:{flow.dport}"
    return ""


def _request(request: Request) -> str:
    host = _host(request.host.partition(":")[0])
    scheme = request.scheme.lower()
    try:
        path = paths.canonical(request.path)
    except paths.AmbiguousPathError:
        return ""
    if not host or scheme not in SCHEME_PORTS:
        return ""
    method = request.method if request.method in METHODS else "*"
    port = "" if request.flow.dport == SCHEME_PORTS[scheme] else f":{request.flow.dport}"
    return f"{method} {scheme}://{host}{port}{path}"
