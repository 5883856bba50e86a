"""From a packet's bytes to the flow it starts.

Law: pure. Any bytes give a Flow or a PacketError; nothing is guessed, and what is absurd is refused. Checksums are the
kernel's business (a queued packet may not have its own yet).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

from policy.values import Address, Flow, Proto, address

_V4: Final = struct.Struct("!BxHHHxB2x4s4s")  # version+IHL, total length, id, fragment, protocol, source, destination
_V6: Final = struct.Struct("!IHBx16s16s")  # version+class+label, payload length, next header, source, destination
_PORTS: Final = struct.Struct("!HH")
_TCP_MINIMUM: Final = 20  # RFC 9293 section 3.1
_UDP_HEADER: Final = 8  # RFC 768
_ICMP_HEADER: Final = 8  # RFC 792, RFC 4443 section 4.1
_ECHO_REQUEST: Final = {Proto.ICMP: 8, Proto.ICMPV6: 128}
# RFC 8200 section 4: hop-by-hop, routing and destination options, all with the same length field.
_EXTENSIONS: Final = frozenset({0, 43, 60})
_FRAGMENT: Final = 44
_MOST_EXTENSIONS: Final = 8


class PacketError(Exception):
    """A packet that can't be read without ambiguity. The message says what is wrong with it."""


def parse_packet(data: bytes) -> Flow:
    """The flow of an IPv4 or IPv6 packet whose headers are all in `data`; the payload may be cut off. Raises PacketError.

    Ports are 0 for what is neither TCP nor UDP. ICMP is an echo request or an error.
    """
    if not data:
        raise PacketError("empty")
    version = data[0] >> 4
    if version == 4:
        proto, src, dst, start, length = _ipv4(data)
    elif version == 6:
        proto, src, dst, start, length = _ipv6(data)
    else:
        raise PacketError(f"IP version {version}")
    sport, dport = _ports(proto, data[start:], length)
    return Flow(proto, src, sport, dst, dport)


type _Network = tuple[int, Address, Address, int, int]  # protocol, source, destination, payload's start and length


def _ipv4(data: bytes) -> _Network:
    if len(data) < _V4.size:
        raise PacketError("truncated IPv4 header")
    first, total, _, fragment, proto, src, dst = _V4.unpack_from(data)
    start = (first & 0x0F) * 4
    if start < _V4.size or len(data) < start:
        raise PacketError("bad IPv4 header length")  # RFC 791 section 3.1
    if total < start:
        raise PacketError("IPv4 length shorter than its header")
    if fragment & 0x3FFF:  # more fragments, or an offset: conntrack puts fragments together before we see them
        raise PacketError("IPv4 fragment")
    return proto, IPv4Address(src), IPv4Address(dst), start, total - start


def _ipv6(data: bytes) -> _Network:
    if len(data) < _V6.size:
        raise PacketError("truncated IPv6 header")
    _, length, following, src, dst = _V6.unpack_from(data)
    start = _V6.size
    for _ in range(_MOST_EXTENSIONS):
        if following == _FRAGMENT:
            raise PacketError("IPv6 fragment")
        if following not in _EXTENSIONS:
            return following, address(src), address(dst), start, length - (start - _V6.size)
        if len(data) < start + 8:
            raise PacketError("truncated IPv6 extension header")
        following, size = data[start], (data[start + 1] + 1) * 8
        start += size
    raise PacketError("too many IPv6 extension headers")


def _ports(proto: int, payload: bytes, length: int) -> tuple[int, int]:
    """`length` is what the IP header says that there is, in octets. A GSO packet may say 0 in IPv6 (RFC 2675)."""
    if proto in (Proto.TCP, Proto.UDP):
        minimum = _TCP_MINIMUM if proto == Proto.TCP else _UDP_HEADER
        if len(payload) < minimum or 0 < length < minimum or length < 0:
            raise PacketError("truncated transport header")
        sport, dport = _PORTS.unpack_from(payload)
        if proto == Proto.TCP and not _TCP_MINIMUM <= (payload[12] >> 4) * 4:
            raise PacketError("bad TCP header length")
        return sport, dport
    if proto in (Proto.ICMP, Proto.ICMPV6):
        if len(payload) < _ICMP_HEADER:
            raise PacketError("truncated ICMP header")
        if payload[0] != _ECHO_REQUEST[Proto(proto)]:
            raise PacketError(f"ICMP type {payload[0]}")
    return 0, 0
