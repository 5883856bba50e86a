"""From the tokens of one valid line to a rule or a header.

Law: what a PEG can't say in reason is checked here (numbers, lengths, which term suits which rule), and every default
and every inheritance has its one place here. A LineError says where and why; nothing is repaired in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise
from typing import NamedTuple

from policy import names, paths
from policy.rules import (
    CGROUP_KINDS,
    ICMP,
    METHODS,
    SCHEME_PORTS,
    TCP,
    UDP,
    Attribute,
    Flag,
    Key,
    Kind,
    Rule,
    Source,
    Url,
)
from policy.values import Action, Network

type UidOf = Callable[[str], int]

_PROTOS = {"/tcp": TCP, "/udp": UDP}
_HOST_FLAGS = (Flag.PASSTHROUGH, Flag.PRIVATE, Flag.NO_SNI)
_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2
_READS = frozenset({"GET", "HEAD"})
_UNSAID: frozenset[str] = frozenset()


class LineError(Exception):
    """Something wrong at `start`, an offset in the line; the reader makes it a PolicySyntaxError."""

    def __init__(self, start: int, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.start, self.reason, self.hint = start, reason, hint


class Token(NamedTuple):
    """A named piece of a line, as grammar.py names it; `start` is its offset."""

    name: str
    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Transport:
    """Ports and protocols as written; `protos` None where the line leaves the protocol out."""

    protos: frozenset[int] | None
    ports: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class Base:
    """What a path stands on. `path` has no slash at its end; `transport` None is the scheme's own port."""

    scheme: str
    host: names.Pattern
    transport: Transport | None
    path: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a header or a rule says besides its destination.

    None is unsaid; but of `methods`, empty is unsaid and None is any.
    """

    base: Base | None = None
    transport: Transport | None = None
    methods: frozenset[str] | None = _UNSAID
    who: tuple[Attribute, ...] = ()
    flags: frozenset[Flag] = frozenset()
    within: tuple[Network, ...] = ()

    def under(self, header: Terms) -> Terms:
        """These terms where `header` stands above: one's own win, attribute by attribute."""
        own = {(attribute.key, attribute.position) for attribute in self.who}
        inherited = tuple(a for a in header.who if (a.key, a.position) not in own)
        return Terms(
            base=self.base or header.base,
            transport=self.transport or header.transport,
            methods=header.methods if self.methods == _UNSAID else self.methods,
            who=inherited + self.who,
            flags=header.flags | self.flags,
            within=self.within or header.within,
        )


def header(tokens: Sequence[Token], uid_of: UidOf) -> Terms:
    """The terms that a `[...]` line sets. Raises LineError."""
    line = _Line(tokens, uid_of)
    terms = line.terms()
    if "scheme" not in line.first:
        return terms
    prefix = line.path().removesuffix("/") if "path" in line.first else ""
    return replace(terms, base=replace(line.origin(), path=prefix), transport=None)


def rule(tokens: Sequence[Token], above: Terms, uid_of: UidOf, source: Source) -> Rule:
    """The rule a line stands for, below the header `above`. Raises LineError."""
    line = _Line(tokens, uid_of)
    terms = line.terms().under(above)
    action = Action.DENY if "deny" in line.first else Action.ALLOW
    _check(line.kind, action, terms, tokens[0].start)
    match line.kind:
        case Kind.URL:
            bare = _url(line, action, terms)
        case Kind.DNS:
            bare = Rule(action, Kind.DNS, line.host(), protos=frozenset(), ports=frozenset())
        case _:
            bare = _site(line, action, terms)
    return replace(bare, who=terms.who, flags=terms.flags, within=terms.within, source=source)


# What an allow rule leaves out is the least that is useful; what a deny rule leaves out, it denies all of.


def _site(line: _Line, action: Action, terms: Terms) -> Rule:
    destination = line.host() if line.kind is Kind.HOST else line.network()
    allowing = action is Action.ALLOW
    said = terms.transport or Transport(None, frozenset({443}) if allowing else None)
    protos = TCP if allowing and said.protos is None else said.protos
    return Rule(action, line.kind, destination, protos, said.ports)


def _url(line: _Line, action: Action, terms: Terms) -> Rule:
    base = replace(line.origin(), transport=terms.transport) if "scheme" in line.first else terms.base
    if base is None:
        raise LineError(line.first["path"].start, "a path rule needs a URL base", "put a `[https://…]` header above it")
    said = base.transport or Transport(TCP, frozenset({SCHEME_PORTS[base.scheme]}) if action is Action.ALLOW else None)
    methods = terms.methods
    if methods == _UNSAID:
        methods = _READS if action is Action.ALLOW else None
    url = Url(base.scheme, paths.pattern(base.path + line.path()), methods)
    return Rule(action, Kind.URL, base.host, TCP, said.ports, url)


def _check(kind: Kind, action: Action, terms: Terms, start: int) -> None:
    """Refuse terms that can't apply to this kind of rule, the header's as well."""
    protos = None if terms.transport is None else terms.transport.protos
    named = kind is Kind.HOST
    complaints = {
        "a deny rule has no flags": action is Action.DENY and bool(terms.flags or terms.within),
        "a URL rule is about TCP": kind is Kind.URL and protos not in {None, TCP},
        "only URL and path rules have methods": kind is not Kind.URL and terms.methods != _UNSAID,
        "a `dns:` rule has no port": kind is Kind.DNS and terms.transport is not None,
        "a `dns:` rule has no `insecure`": kind is Kind.DNS and Flag.INSECURE in terms.flags,
        "`insecure` and `passthrough` exclude each other": {Flag.INSECURE, Flag.PASSTHROUGH} <= terms.flags,
        "only host rules have `within=`": not named and bool(terms.within),
    } | {f"only host rules have `{flag}`": not named and flag in terms.flags for flag in _HOST_FLAGS}
    for complaint, holds in complaints.items():
        if holds:
            raise LineError(start, complaint, "if it comes from the header above, `[]` ends that")


class _Line:
    """The tokens of one line, read piece by piece. Everything here may raise LineError."""

    def __init__(self, tokens: Sequence[Token], uid_of: UidOf) -> None:
        self.tokens = tokens
        self.first = {token.name: token for token in reversed(tokens)}
        self._uid_of = uid_of

    @property
    def kind(self) -> Kind:
        if "path" in self.first:
            return Kind.URL
        if "resolve" in self.first:
            return Kind.DNS
        return Kind.HOST if "host" in self.first else Kind.ADDRESS

    def terms(self) -> Terms:
        return Terms(
            transport=self._transport(),
            methods=self._methods(),
            who=tuple(self._who()),
            flags=frozenset(Flag(token.text) for token in self.tokens if token.name == "flag"),
            within=self._within(),
        )

    def origin(self) -> Base:
        return Base(self.first["scheme"].text.lower(), self.host(), self._transport())

    def host(self) -> names.Pattern:
        token = self.first["host"]
        try:
            return names.pattern(token.text)
        except names.InvalidNameError as error:
            raise LineError(token.start, f"not a host name: {error}") from error

    def path(self) -> str:
        token = self.first["path"]
        try:
            return paths.canonical(token.text)
        except paths.AmbiguousPathError as error:
            raise LineError(token.start, f"not a path: {error}") from error

    def network(self) -> Network:
        token = next(token for token in self.tokens if token.name.startswith(("network", "bracketed")))
        return _network(token.text.strip("[]"), token.start)

    def _transport(self) -> Transport | None:
        if "icmp" in self.first:
            return Transport(ICMP, None)
        if "ports" not in self.first:
            return None
        proto = self.first.get("proto")
        return Transport(None if proto is None else _PROTOS[proto.text], _ports(self.first["ports"]))

    def _methods(self) -> frozenset[str] | None:
        token = self.first.get("methods")
        if token is None:
            return _UNSAID
        if token.text == "*":
            return None
        for name in token.text.split("|"):
            if name not in METHODS:
                raise LineError(token.start, f"no HTTP method is called {name}", _nearest(name, METHODS))
        return frozenset(token.text.split("|"))

    def _who(self) -> Iterator[Attribute]:
        for token, value in pairwise(self.tokens):
            if token.name == "key":
                yield _attribute(token, value, self._uid_of)

    def _within(self) -> tuple[Network, ...]:
        token = self.first.get("networks")
        return () if token is None else tuple(_network(text, token.start) for text in token.text.split("|"))


def _ports(token: Token) -> frozenset[int] | None:
    """RFC 9293 section 3.1: a port has 16 bits; 0 is nobody's."""
    if token.text == ":*":
        return None
    ports = frozenset(map(int, token.text[1:].split("|")))
    if not all(0 < port < 1 << 16 for port in ports):
        raise LineError(token.start, "a port is a number from 1 to 65535")
    return ports


def _network(text: str, start: int) -> Network:
    """An address or network; IPv4-mapped IPv6 folds to IPv4, as `values.address` does."""
    try:
        network = ip_network(text)
    except ValueError as error:
        raise LineError(start, f"not an address or network: {error}", _whole_network(text)) from error
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - 96))
    return network


def _whole_network(text: str) -> str:
    try:
        return f"did you mean {ip_network(text, strict=False)}?"
    except ValueError:
        return ""


def _attribute(key: Token, value: Token, uid_of: UidOf) -> Attribute:
    name, _, index = key.text.rstrip("]").partition("[")
    text = value.text if value.name == "bare" else value.text[1:-1]
    literal = value.name == "quoted" or "*" not in text
    if name == Key.USER:
        text, literal = _uid(text, value.start, uid_of), True
    if name == Key.CGROUP and value.name == "bare" and text.startswith("@") and text not in CGROUP_KINDS:
        raise LineError(value.start, f"no cgroups are called {text}", _nearest(text, CGROUP_KINDS))
    return Attribute(Key(name), text, literal, int(index) if index else None)


def _uid(text: str, start: int, uid_of: UidOf) -> str:
    """A uid in decimal; policy itself knows no user database."""
    if text.isascii() and text.isdigit():
        return str(int(text))
    try:
        return str(uid_of(text))
    except LookupError as error:
        raise LineError(start, f"no user is called {text}", "write the uid if the user lives elsewhere") from error


def _nearest(word: str, known: Sequence[str]) -> str:
    found = get_close_matches(word, known, 1)
    return f"did you mean {found[0]}?" if found else ""
