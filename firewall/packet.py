"""From a packet's bytes to the flow it belongs to.

Law: pure. Any bytes give a Flow or a PacketError; nothing is guessed, and what two readers could read differently is
refused. Checksums are the kernel's business: a queued packet need not have its own yet.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from policy.values import Flow, Proto, address

type Bytes = bytes | memoryview

# Octets of a packet that are looked at, and so how much of it the queue copies; netfilterqueue has hardly more room.
# Enough for every header we accept; only of a longer packet may the end be missing.
COPIED: Final = 4000

# version+IHL, total length, flags+offset, protocol, source, destination (RFC 791 section 3.1)
_V4: Final = Struct("!BxHxxHxBxx4s4s")
# payload length, next header, source, destination (RFC 8200 section 3)
_V6: Final = Struct("!4xHBx16s16s")
_PORTS: Final = Struct("!HHH")  # and UDP's length (RFC 768)
_SOURCE_ROUTES: Final = frozenset({131, 137})  # loose and strict (RFC 791): the real destination is elsewhere
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60  # RFC 8200 section 4
_EXTENSIONS: Final = frozenset({_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION})
_EXTENSIONS_MOST: Final = 4  # RFC 8200 section 4.1: one hop-by-hop, two destination; octets are bounded by COPIED
_MAPPED: Final = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2
_address: Final = lru_cache(maxsize=1024)(address)  # the same few over and over, and kept for a while in many flows
_ECHO: Final = {Proto.ICMP: (4, 8), Proto.ICMPV6: (6, 128)}  # IP version; type (RFC 792, RFC 4443 section 4.1)


class PacketError(Exception):
    """A packet that can't be read without ambiguity. The message says what is wrong with it."""


class Header(NamedTuple):
    """Where the transport header of a packet starts and where the packet ends, in octets; what IP says of it."""

    proto: int
    start: int
    total: int
    src: bytes
    dst: bytes


def parse_packet(data: Bytes) -> Flow:
    """The flow of one IPv4 or IPv6 packet, whole or its first COPIED octets. Raises PacketError.

    Of ICMP, echo requests only. Protocols other than TCP, UDP and ICMP have no ports here: they are to be judged too.
    """
    header = parse_header(data)
    sport, dport = _ports(data, header.proto, header.start, header.total)
    return Flow(header.proto, _address(header.src), sport, _address(header.dst), dport)


def parse_header(data: Bytes) -> Header:
    """The IP headers of one packet, extensions included. Raises PacketError."""
    if len(data) < _V4.size:
        raise PacketError("shorter than an IP header")
    version = data[0] >> 4
    if version == 4:
        return _ipv4(data)
    if version == 6:
        return _ipv6(data)
    raise PacketError(f"IP version {version}")


def _ipv4(data: Bytes) -> Header:
    first, total, fragment, proto, src, dst = _V4.unpack_from(data)
    start = (first & 0x0F) * 4
    if start < _V4.size or total < start:
        raise PacketError("bad IPv4 header length")
    _check_length(data, total)
    if fragment & 0xBFFF:  # all but "don't fragment": conntrack puts fragments together before we see them
        raise PacketError("IPv4 fragment or reserved flag")
    if start > _V4.size:
        _check_options(data[_V4.size : start])
    return Header(proto, start, total, src, dst)


def _ipv6(data: Bytes) -> Header:
    if len(data) < _V6.size:
        raise PacketError("truncated IPv6 header")
    length, following, src, dst = _V6.unpack_from(data)
    total = _V6.size + length  # a jumbogram says 0 here and so ends as too long (RFC 2675): nobody needs to send one
    _check_length(data, total)
    if src.startswith(_MAPPED) or dst.startswith(_MAPPED):  # `address` would make it IPv4's, where it doesn't go
        raise PacketError("IPv4-mapped address on the wire")
    proto, start = _after_extensions(data, following, total) if following in _EXTENSIONS else (following, _V6.size)
    return Header(proto, start, total, src, dst)


def _check_length(data: Bytes, total: int) -> None:
    here = len(data)
    if here != total and (here > total or here < COPIED):
        raise PacketError(f"{here} octets where the IP header says {total}")


def _check_options(options: Bytes) -> None:
    """IPv4 options are harmless as long as they don't route (RFC 791 section 3.1)."""
    at = 0
    while at < len(options) and options[at] != 0:  # end of list
        if options[at] == 1:  # no operation
            at += 1
            continue
        if options[at] in _SOURCE_ROUTES:
            raise PacketError("IPv4 source route")
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            raise PacketError("bad IPv4 option length")
        at += size


def _after_extensions(data: Bytes, following: int, total: int) -> tuple[int, int]:
    """The protocol behind hop-by-hop and destination options, and where it starts."""
    start = _V6.size
    for _ in range(_EXTENSIONS_MOST):
        if following not in _EXTENSIONS:
            return following, start
        if following == _ROUTING:  # the real destination may be elsewhere; the address in the header is the next hop
            raise PacketError("IPv6 routing header")
        if following == _FRAGMENT:  # atomic ones too (RFC 6946)
            raise PacketError("IPv6 fragment")
        if following == _HOP_BY_HOP and start != _V6.size:
            raise PacketError("IPv6 hop-by-hop options out of place")
        if start + 8 > min(total, len(data)):
            raise PacketError("truncated IPv6 extension header")
        following, start = data[start], start + (data[start + 1] + 1) * 8
    raise PacketError("too many IPv6 extension headers")


def _ports(data: Bytes, proto: int, start: int, total: int) -> tuple[int, int]:
    if proto == Proto.TCP:
        return _tcp_ports(data, start, total)
    if proto == Proto.UDP:
        return _udp_ports(data, start, total)
    if proto in _ECHO:
        return _echo(data, proto, start, total), 0
    if start > total:
        raise PacketError("IP headers longer than the packet")
    return 0, 0


def _tcp_ports(data: Bytes, start: int, total: int) -> tuple[int, int]:
    if start + 20 > min(total, len(data)):
        raise PacketError("truncated TCP header")
    header = (data[start + 12] >> 4) * 4
    if header < 20 or start + header > total:
        raise PacketError("bad TCP header length")  # RFC 9293 section 3.1
    sport, dport, _ = _PORTS.unpack_from(data, start)
    return _ports_in_use(sport, dport)


def _udp_ports(data: Bytes, start: int, total: int) -> tuple[int, int]:
    if start + 8 > min(total, len(data)):
        raise PacketError("truncated UDP header")
    sport, dport, length = _PORTS.unpack_from(data, start)
    if start + length != total:  # octets behind the datagram would be seen by some and not by others
        raise PacketError("bad UDP length")
    return _ports_in_use(sport, dport)


def _ports_in_use(sport: int, dport: int) -> tuple[int, int]:
    if not sport or not dport:
        raise PacketError("port 0")  # reserved (RFC 6335 section 6)
    return sport, dport


def _echo(data: Bytes, proto: int, start: int, total: int) -> int:
    """An echo request's identifier."""
    version, kind = _ECHO[Proto(proto)]
    if data[0] >> 4 != version:
        raise PacketError("ICMP of the other IP version")
    if start + 8 > min(total, len(data)):
        raise PacketError("truncated ICMP header")
    if data[start] != kind or data[start + 1] != 0:
        raise PacketError(f"ICMP type {data[start]} code {data[start + 1]}")
    return data[start + 4] << 8 | data[start + 5]
