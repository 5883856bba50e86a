"""The tokens of one valid line, read into values.

Law: what a PEG can't say in reason about a single token is checked here (numbers, lengths, names that must exist), each
complaint at its token. What the tokens mean together is build.py's business.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise
from typing import NamedTuple

from policy import names, paths
from policy.rules import CGROUP_KINDS, ICMP, METHODS, TCP, UDP, Attribute, Flag, Key, Kind
from policy.values import Network

type UidOf = Callable[[str], int]

UNSAID: frozenset[str] = frozenset()
"""No methods at all: the line doesn't speak of them. (None is every method.)"""

_PROTOS = {"/tcp": TCP, "/udp": UDP}
_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2


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


class Line:
    """The tokens of one line, read piece by piece. Everything here may raise LineError."""

    def __init__(self, tokens: Sequence[Token], uid_of: UidOf) -> None:
        self.tokens = tokens
        self.first = {token.name: token for token in reversed(tokens)}
        self.kind = _kind(self.first)
        self._uid_of = uid_of

    def scheme(self) -> str:
        return self.first["scheme"].text.lower()

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

    def transport(self) -> Transport | None:
        if "icmp" in self.first:
            return Transport(ICMP, None)
        if "ports" not in self.first:
            return None
        proto = self.first.get("proto")
        return Transport(None if proto is None else _PROTOS[proto.text], _ports(self.first["ports"]))

    def methods(self) -> frozenset[str] | None:
        token = self.first.get("methods")
        if token is None:
            return UNSAID
        if token.text == "*":
            return None
        for name in token.text.split("|"):
            if name not in METHODS:
                raise LineError(token.start, f"no HTTP method is called {name}", _nearest(name, METHODS))
        return frozenset(token.text.split("|"))

    def who(self) -> tuple[Attribute, ...]:
        pairs = pairwise(self.tokens)
        return tuple([_attribute(key, value, self._uid_of) for key, value in pairs if key.name == "key"])

    def flags(self) -> frozenset[Flag]:
        return frozenset([Flag(token.text) for token in self.tokens if token.name == "flag"])

    def within(self) -> tuple[Network, ...]:
        token = self.first.get("networks")
        return () if token is None else tuple(_network(text, token.start) for text in token.text.split("|"))


def _kind(first: Container[str]) -> Kind:
    if "path" in first:
        return Kind.URL
    if "resolve" in first:
        return Kind.DNS
    return Kind.HOST if "host" in first else Kind.ADDRESS


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
    if name == Key.CGROUP and text.startswith("@") and text not in CGROUP_KINDS:
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
