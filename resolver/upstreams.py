"""Upstream servers: which there are, and which to ask first.

Law: text in, values out; no file is read and nothing is resolved here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

DNS_PORT: Final = 53
_UNTRIED_RTT: Final = 0.0  # seconds: an untried server is worth one try
_GAIN: Final = 0.25  # weight of the latest measurement
_PENALTY: Final = 2.0  # seconds that a time-out counts as
_FORGIVEN_AFTER: Final = 30.0  # seconds until a server that failed is tried like a new one


class UpstreamError(ValueError):
    """Text that does not name an upstream server; the message says what would."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server to forward to. The address may carry an IPv6 zone (`fe80::1%eth0`)."""

    address: IPv4Address | IPv6Address
    port: int = DNS_PORT

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return host if self.port == DNS_PORT else f"{host}:{self.port}"


def parse_upstream(text: str) -> Upstream:
    """ADDR, ADDR:PORT, [V6] or [V6]:PORT. Raises UpstreamError for anything else, host names among it."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise UpstreamError(f"upstream {text!r}: write an IPv6 address with a port as [ADDR]:PORT")
        return Upstream(_address(host, text), _port(port[1:], text) if port else DNS_PORT)
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return Upstream(_address(host, text), _port(port, text))
    return Upstream(_address(text, text))


def upstream_from_system(resolv_conf_text: str) -> tuple[Upstream, ...]:
    """The servers that a resolv.conf names, in its order, each once. Raises UpstreamError where there is none, or
    for an address that can't be read. Source: resolv.conf(5)."""
    found = dict[Upstream, None]()
    for line in resolv_conf_text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"]:  # the keyword stands at the start of a line, `#` and `;` begin comments
            if len(words) < 2 or line[0].isspace():
                continue  # glibc ignores such a line as well
            found[Upstream(_address(words[1], line))] = None
    if not found:
        raise UpstreamError("resolv.conf names no nameserver: name an upstream by its address")
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


@dataclass(slots=True)
class Standings:
    """How quickly each upstream answered of late, for choosing the order of asking. One entry an upstream."""

    upstreams: Sequence[Upstream]
    _rtt: dict[Upstream, float] = field(default_factory=dict)
    _failed_at: dict[Upstream, float] = field(default_factory=dict)

    def ranked(self, now: float) -> tuple[Upstream, ...]:
        """The upstreams, quickest first; among equals the configured order stands."""
        for upstream in [each for each, at in self._failed_at.items() if now - at > _FORGIVEN_AFTER]:
            del self._failed_at[upstream]
            self._rtt.pop(upstream, None)
        if len(self.upstreams) == 1:
            return tuple(self.upstreams)
        return tuple(sorted(self.upstreams, key=lambda upstream: self._rtt.get(upstream, _UNTRIED_RTT)))

    def answered(self, upstream: Upstream, rtt: float) -> None:
        self._failed_at.pop(upstream, None)
        before = self._rtt.get(upstream, rtt)
        self._rtt[upstream] = before + _GAIN * (rtt - before)

    def timed_out(self, upstream: Upstream, now: float) -> None:
        self._failed_at[upstream] = now
        self._rtt[upstream] = _PENALTY
