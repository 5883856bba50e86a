"""What `dnsfw explain` is asked about: a subject and its process, from the words of a command line.

Law: text in, values out; UsageError for what is no question. What a subject leaves open is assumed here, and told.
"""

from __future__ import annotations

import pwd
import re
from dataclasses import dataclass
from typing import NamedTuple

from dnsfw.errors import UsageError
from policy import Address, Flow, Owner, Policy, Proto, Query, Request, Subject, address, decide
from policy.names import InvalidNameError, from_unicode
from policy.rules import SCHEME_PORTS

_FORMS = "Write https://host/path, tcp://address:port, udp://address:port, icmp://address or dns:name[/TYPE]."
_URL = re.compile(r"(?P<scheme>[A-Za-z]+)://(?P<host>\[[^]]*\]|[^/:?#]*)(?::(?P<port>\d{1,5}))?(?P<path>/[^?#]*)?")
_NUMBER = re.compile(r"[0-9]{1,5}")
_PROTOS = {"tcp": Proto.TCP, "udp": Proto.UDP, "icmp": Proto.ICMP}
_CLIENTS = {4: address("192.0.2.254"), 6: address("2001:db8::fe")}
# For documentation (RFC 5737, RFC 3849): stand in for the address that a host would be resolved to.
_STAND_INS = [address(f"{network}.1") for network in ("198.51.100", "203.0.113", "192.0.2")] + [address("2001:db8::1")]


@dataclass(frozen=True, slots=True)
class Words:
    """The options. "" and () are unsaid. `names` are the names bound to the address, `address` what the host has."""

    method: str = "GET"
    exe: str = ""
    arg: tuple[str, ...] = ()
    user: str = ""
    cgroup: str = ""
    image: str = ""
    step: str = ""
    action: str = ""
    names: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """`owner` is None where nothing was said of the process. `assumed` says what was made up, "" for nothing."""

    subject: Subject
    owner: Owner | None
    names: tuple[str, ...]
    assumed: str = ""


def asked(text: str, words: Words, policy: Policy) -> Asked:
    """The question. The policy is needed for the address that it would let a name have. Raises UsageError."""
    owner = _owner(words)
    if text.startswith("dns:"):
        return Asked(_query(text.removeprefix("dns:")), owner, ())
    found = _URL.match(text)
    scheme = found["scheme"].lower() if found else ""
    if found is None or not found["host"] or scheme not in {*_PROTOS, *SCHEME_PORTS}:
        raise UsageError(f"{text} is nothing that could be allowed.", _FORMS)
    place = _place(found["host"], words, policy, owner)
    flow = Flow(
        _PROTOS.get(scheme, Proto.TCP), _CLIENTS[place.address.version], 40000, place.address, _port(text, found)
    )
    if scheme not in SCHEME_PORTS:
        if flow.proto == Proto.ICMP and flow.dst.version == 6:
            flow = Flow(Proto.ICMPV6, flow.src, 0, flow.dst, 0)
        return Asked(flow, owner, place.names, place.assumed)
    request = Request(flow, scheme, found["host"].strip("[]"), words.method, found["path"] or "/")
    return Asked(request, owner, place.names, place.assumed)


class _Place(NamedTuple):
    """Where a subject goes: an address, the names bound to it, and what of that was made up."""

    address: Address
    names: tuple[str, ...]
    assumed: str = ""


def _place(host: str, words: Words, policy: Policy, owner: Owner | None) -> _Place:
    names = tuple(_name(name) or name for name in words.names.split(",") if name)
    if (literal := _literal(host.strip("[]"))) is not None:
        return _Place(literal, names)
    name = _name(host)
    if not name:
        raise UsageError(f"{host} is neither an address nor a name.", _FORMS)
    if not words.address:
        resolved = _resolved(name, policy, owner)
        return _Place(resolved, names or (name,), f"{name} was resolved to {resolved}")
    if (said := _literal(words.address)) is None:
        raise UsageError(f"{words.address} is no address.", "Write an IPv4 or IPv6 address.")
    return _Place(said, names or (name,))


def _literal(text: str) -> Address | None:
    try:
        return address(text)
    except ValueError:
        return None


def _name(text: str) -> str:
    """The canonical name; "" for none. A request's userinfo is not our business: decide() refuses it."""
    try:
        return from_unicode(text.rpartition("@")[2])
    except InvalidNameError:
        return ""


def _resolved(name: str, policy: Policy, owner: Owner | None) -> Address:
    """An address that dnsfw would bind to the name and that no address rule names, if there is one."""
    allowing = decide(policy, Query(name, 1, _client()), owner, ()).rule
    within = allowing.within if allowing is not None else ()
    candidates = [network[0] for network in within] or _STAND_INS
    indexes = (policy.allows, policy.denies)
    unnamed = (one for one in candidates if not any(next(index.by_address(one), None) for index in indexes))
    return next(unnamed, candidates[0])


def _client() -> Flow:
    return Flow(Proto.UDP, _CLIENTS[4], 40000, address("192.0.2.253"), 53)


def _query(text: str) -> Query:
    from dnslib import QTYPE, DNSError  # noqa: PLC0415 - the numbers of DNS types have names there

    name, _, qtype = text.partition("/")
    try:
        number = int(qtype) if _NUMBER.fullmatch(qtype) else int(getattr(QTYPE, (qtype or "A").upper()))
    except (AttributeError, DNSError) as error:
        raise UsageError(f"{qtype} is no DNS type.", "Write A, AAAA, TXT, … or a number.") from error
    return Query(_name(name) or name, number, _client())


def _port(text: str, found: re.Match[str]) -> int:
    port = int(found["port"] or SCHEME_PORTS.get(found["scheme"].lower(), 0))
    if found["scheme"].lower() == "icmp":
        return 0
    if not 0 < port < 1 << 16:
        raise UsageError(f"{text} needs a port from 1 to 65535.", _FORMS)
    return port


def _owner(words: Words) -> Owner | None:
    """A process of which all that isn't said is nothing: no arguments, no container. None if nothing is said."""
    if not any((words.exe, words.arg, words.user, words.cgroup, words.image, words.step, words.action)):
        return None
    inside = words.image or words.cgroup in {"@container", "@docker"}
    return Owner(
        pid=0,
        start_time=0,
        uid=_uid(words.user),
        exe=words.exe,
        argv=(words.exe, *words.arg),
        cgroup="" if words.cgroup.startswith("@") else words.cgroup,
        container="?" if inside else "",
        image=words.image,
        step=words.step,
        action=words.action,
    )


def _uid(user: str) -> int:
    """-1, which is nobody's, where no user is said."""
    if not user or (user.isascii() and user.isdigit()):
        return int(user or -1)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise UsageError(f"No user is called {user}.", "Write a uid if the user lives elsewhere.") from None
