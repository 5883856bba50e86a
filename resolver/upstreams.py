"""Upstream servers: which there are, and which to ask first.

Law: text in, values out; no file is read and nothing is resolved here.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

DNS_PORT: Final = 53
TLS_PORT: Final = 853  # RFC 7858 3.1
_STUB: Final = frozenset(map(ip_address, ("127.0.0.53", "127.0.0.54")))  # systemd-resolved(8): not real servers
_UNTRIED_RTT: Final = 0.0  # seconds: an untried server is worth one try
_GAIN: Final = 0.25  # weight of the latest measurement
_PENALTY: Final = 2.0  # seconds that a time-out counts as
_FORGIVEN_AFTER: Final = 30.0  # seconds until a server that failed is tried like a new one


class UpstreamError(ValueError):
    """Text that does not name an upstream server; the message says what would."""


class Transport(Enum):
    """How a question travels. UDP turns to TCP where an answer is truncated or not to be trusted."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server to forward to. The address may carry an IPv6 zone (`fe80::1%eth0`). `certified` is the name that its
    certificate must hold, for TLS alone; "" stands for its address."""

    address: IPv4Address | IPv6Address
    port: int = DNS_PORT
    transport: Transport = Transport.UDP
    certified: str = ""
    # As socket(2) and connect(2) take them; and a hash: it is a key of every question, and addresses are slow at this.
    family: socket.AddressFamily = field(init=False, repr=False, compare=False)
    place: tuple[str, int] = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        place = str(self.address), self.port
        object.__setattr__(self, "family", socket.AF_INET6 if self.address.version == 6 else socket.AF_INET)
        object.__setattr__(self, "place", place)
        object.__setattr__(self, "_hash", hash(place))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        port = "" if self.port == _PORTS[self.transport] else f":{self.port}"
        scheme = "" if self.transport is Transport.UDP else f"{self.transport.value}://"
        return f"{scheme}{host}{port}" + (f"#{self.certified}" if self.certified else "")


_PORTS: Final = {Transport.UDP: DNS_PORT, Transport.TCP: DNS_PORT, Transport.TLS: TLS_PORT}


def parse_upstream(text: str) -> Upstream:
    """ADDR, ADDR:PORT, [V6] or [V6]:PORT, with `udp://`, `tcp://` or `tls://` before it or not.

    Behind a `tls://` form `#NAME` gives the name in the server's certificate. Raises UpstreamError for anything else,
    host names among it.
    """
    scheme, separator, rest = text.partition("://")
    try:
        transport = Transport(scheme) if separator else Transport.UDP
    except ValueError:
        raise UpstreamError(f"upstream {text!r}: {scheme!r} is none of udp, tcp, tls") from None
    place, _, certified = (rest if separator else text).partition("#")
    if certified and transport is not Transport.TLS:
        raise UpstreamError(f"upstream {text!r}: only a tls:// server has a certificate to name")
    host, port = _host_and_port(place, text)
    number = _PORTS[transport] if port is None else _port(port, text)
    return Upstream(_address(host, text), number, transport, certified)


def _host_and_port(place: str, text: str) -> tuple[str, str | None]:
    if place.startswith("["):
        host, bracket, port = place[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise UpstreamError(f"upstream {text!r}: write an IPv6 address with a port as [ADDR]:PORT")
        return host, port[1:] if port else None
    if place.count(":") == 1:
        host, _, port = place.partition(":")
        return host, port
    return place, None


def upstream_from_system(resolv_conf_text: str, uplinks_text: str = "") -> tuple[Upstream, ...]:
    """The servers that a resolv.conf names, in its order, each once.

    `uplinks_text` is systemd-resolved's own list (/run/systemd/resolve/resolv.conf, "" where there is none). It is
    taken where the first names nothing but resolved's stub: under `up` resolved is guarded too, and asking it would
    be asking ourselves. Raises UpstreamError where no server is named, or for an address that can't be read.
    Source: resolv.conf(5), systemd-resolved(8).
    """
    found = _nameservers(resolv_conf_text)
    if uplinks_text and all(each.address in _STUB for each in found):
        found = _nameservers(uplinks_text) or found
    if not found:
        raise UpstreamError("resolv.conf names no nameserver: name an upstream by its address")
    return found


def _nameservers(resolv_conf_text: str) -> tuple[Upstream, ...]:
    found = dict[Upstream, None]()
    for line in resolv_conf_text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"]:  # the keyword stands at the start of a line, `#` and `;` begin comments
            if len(words) < 2 or line[0].isspace():
                continue  # glibc ignores such a line as well
            found[Upstream(_address(words[1], line))] = None
    return tuple(found)


def _address(host: str, text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(host)
    except ValueError:
        raise UpstreamError(
            f"upstream {text!r}: {host!r} is not an IP address"
            " (a host name can't be used: it would need an upstream to be resolved)"
        ) from None


def _port(digits: str, text: str) -> int:
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5 and 0 < int(digits) <= 0xFFFF):
        raise UpstreamError(f"upstream {text!r}: {digits!r} is not a port (1-65535)")
    return int(digits)


@dataclass(frozen=True, slots=True)
class Standing:
    """One upstream of late. `rtt` is in seconds, None before its first answer; `silent` is one that timed out."""

    upstream: Upstream
    rtt: float | None
    silent: bool


@dataclass(slots=True)
class Standings:
    """How quickly each upstream answered of late, for choosing the order of asking. One entry an upstream."""

    upstreams: Sequence[Upstream]
    _rtt: dict[Upstream, float] = field(default_factory=dict)
    _failed_at: dict[Upstream, float] = field(default_factory=dict)

    def ranked(self, now: float) -> tuple[Upstream, ...]:
        """The upstreams, quickest first; among equals the configured order stands."""
        if self._failed_at:
            for upstream in [each for each, at in self._failed_at.items() if now - at > _FORGIVEN_AFTER]:
                del self._failed_at[upstream]
                self._rtt.pop(upstream, None)
        if len(self.upstreams) == 1:
            return tuple(self.upstreams)
        return tuple(sorted(self.upstreams, key=lambda upstream: self._rtt.get(upstream, _UNTRIED_RTT)))

    def answered(self, upstream: Upstream, rtt: float) -> None:
        if self._failed_at:
            self._failed_at.pop(upstream, None)
        before = self._rtt.get(upstream, rtt)
        self._rtt[upstream] = before + _GAIN * (rtt - before)

    def timed_out(self, upstream: Upstream, now: float) -> None:
        self._failed_at[upstream] = now
        self._rtt[upstream] = _PENALTY

    def told(self) -> tuple[Standing, ...]:
        """For people to read, in the configured order."""
        return tuple(
            Standing(each, None if each in self._failed_at else self._rtt.get(each), each in self._failed_at)
            for each in self.upstreams
        )
