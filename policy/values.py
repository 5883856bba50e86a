"""The values that travel between rooms.

Law: frozen, slotted values and their constructors, nothing else. Bytes and text become these once, at the
edge; nothing here does I/O, reads a clock or knows a rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from struct import Struct
from typing import Final

from policy.value import Value

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

_PACKED: Final = Struct("!BHH")


def address(raw: str | bytes) -> Address:
    """The one representation of an address: text or 4/16 network-order bytes in, IPv4-mapped IPv6 folded to IPv4.

    Raises ValueError for anything that is not an address, and for a zone (`fe80::1%eth0`).
    Source: RFC 4291 section 2.5.5.2.
    """
    if isinstance(raw, str) and "%" in raw:
        raise ValueError(f"an address with a zone is not an address here: {raw!r}")
    if isinstance(raw, str):
        parsed = ip_address(raw)
    elif len(raw) == 16:
        parsed = IPv6Address(raw)  # ip_address() tries IPv4 first, and pays for its exception
    else:
        return IPv4Address(raw)
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


class Proto(IntEnum):
    """IP protocol numbers that policy can name (IANA protocol-numbers)."""

    ICMP = 1
    TCP = 6
    UDP = 17
    ICMPV6 = 58


class Flow(Value, frozen=True):
    """A transport 5-tuple, in the direction of the first packet.

    `proto` is the IP protocol number. Ports are host-order integers, 0 where the protocol has none. An ICMP or
    ICMPv6 flow is an echo request, no other type is ever represented; its identifier is the source port.
    """

    proto: int
    src: Address
    sport: int
    dst: Address
    dport: int

    @property
    def packed(self) -> bytes:
        """All of it as octets in network order: protocol, ports, addresses. A key that takes a quarter of the room."""
        return _PACKED.pack(self.proto, self.sport, self.dport) + self.src.packed + self.dst.packed


def unpacked(packed: bytes) -> Flow:
    """The flow whose `packed` this is."""
    proto, sport, dport = _PACKED.unpack_from(packed)
    middle = (len(packed) + _PACKED.size) // 2
    return Flow(proto, _address(packed[_PACKED.size : middle]), sport, _address(packed[middle:]), dport)


_address: Final = lru_cache(maxsize=1024)(address)  # the same few over and over


class Query(Value, frozen=True):
    """One DNS question: a canonical name (lower case, A-labels, no trailing dot; "" is the root), a type number,
    and the flow it came in on (source: the client; destination: our listener, after redirection)."""

    name: str
    qtype: int
    client: Flow


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request seen by the proxy. `path` is the raw request target without its query."""

    flow: Flow
    scheme: str
    host: str
    method: str
    path: str


class Spoken(StrEnum):
    """The protocols whose first words name a host, and all others."""

    TLS = "tls"
    HTTP = "http"
    QUIC = "quic"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client's first words say: the protocol, and the canonical name of the host it wants. `name` is None where
    it doesn't say."""

    protocol: Spoken
    name: str | None


type Subject = Query | Flow | Request


@dataclass(frozen=True, slots=True)
class Owner:
    """The process behind a socket, as it was when the socket spoke.

    `start_time` is in clock ticks since boot (proc(5), /proc/PID/stat field 22): with `pid` it names one process
    for ever. `complete` is False where some facts of the process itself could no longer be read: of `exe`, `argv` and
    `cgroup` "" is unknown then. Of where it runs (`container`, `image`, `step`, `action`) None is unknown, and "" says
    for sure that there is none. `container` is the engine's id, `container_name` for people.
    """

    pid: int
    start_time: int
    uid: int
    exe: str
    argv: tuple[str, ...]
    cgroup: str
    comm: str = ""
    container: str | None = None
    image: str | None = None
    step: str | None = None
    action: str | None = None
    complete: bool = True
    container_name: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """`address` was the answer for `name` until `expires_at` (seconds of the caller's monotonic clock)."""

    name: str
    address: Address
    expires_at: float


class Action(StrEnum):
    """What policy says of a subject."""

    ALLOW = "allow"
    PEEK = "peek"  # open the connection, then the first data must name an allowed, bound host
    ONCE = "once"  # this datagram; its flow's next one is judged by itself
    INSPECT = "inspect"  # through the proxy: a rule looks at URLs
    DENY = "deny"


class Reason(StrEnum):
    """Why. Reports and the journal use these values as they are."""

    ALLOW_RULE = "allow-rule"
    DENY_RULE = "deny-rule"
    NO_RULE = "no-rule"  # nothing in the policy names this destination
    NO_BINDING = "no-binding"  # an address that no allowed name was resolved to, and no address rule covers
    PORT = "port"  # a rule names the destination, not this port or protocol
    OWNER = "owner"  # a rule names the destination, not this process
    NAME = "name"  # the client asks for an allowed host, at an address that this host was not resolved to
    NO_NAME = "no-name"  # the client doesn't say which host it wants
    METHOD = "method"
    PATH = "path"
    TYPE = "type"  # a DNS type that programs have no use for, tunnels do
    BUDGET = "budget"  # more names or octets through one wildcard than programs need
    PINNED = "pinned"  # the program refuses the proxy's certificate: it trusts other authorities than the system's
    UNTRUSTED = "untrusted"  # the server's certificate can't be verified by the proxy, or its TLS is too old
    CLIENT_CERTIFICATE = "client-certificate"  # the server wants one of the client, and the proxy has none
    PROXY = "proxy"  # a rule looks at URLs, and the proxy that would look isn't there
    MALFORMED = "malformed"  # the subject can't be read without ambiguity
    FAULT = "fault"  # an error of our own while judging
