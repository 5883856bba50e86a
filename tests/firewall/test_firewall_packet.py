"""Bytes to flows: what is read, what is refused, and that nothing else can happen."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.packet import COPIED, PacketError, parse_packet
from policy.values import Flow, Proto

A4, B4 = IPv4Address("192.0.2.1"), IPv4Address("198.51.100.2")
A6, B6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
MAPPED = IPv6Address("::ffff:192.0.2.1")

TCP = struct.pack("!HHIIBBHHH", 40000, 443, 1, 0, 5 << 4, 2, 1000, 0, 0)
UDP = struct.pack("!HHHH", 40000, 443, 12, 0) + b"data"
PING4, PING6 = bytes([8, 0, 0, 0, 0x12, 0x34, 0, 1]), bytes([128, 0, 0, 0, 0x12, 0x34, 0, 1])


def v4(proto: int, payload: bytes, *, options: bytes = b"", fragment: int = 0, total: int | None = None) -> bytes:
    words = 5 + len(options) // 4
    length = words * 4 + len(payload) if total is None else total
    fixed = struct.pack("!BBHHHBBH4s4s", 0x40 | words, 0, length, 7, fragment, 64, proto, 0, A4.packed, B4.packed)
    return fixed + options + payload


def v6(following: int, payload: bytes, *, length: int | None = None, src: IPv6Address = A6) -> bytes:
    size = len(payload) if length is None else length
    return struct.pack("!IHBB16s16s", 0x6000_0000, size, following, 64, src.packed, B6.packed) + payload


def extension(following: int, octets: int = 8) -> bytes:
    """Hop-by-hop or destination options: nothing but Pad1 (RFC 8200 section 4.2)."""
    return bytes([following, octets // 8 - 1]) + bytes(octets - 2)


GOOD = {
    "tcp v4": (v4(6, TCP), Flow(6, A4, 40000, B4, 443)),
    "tcp v6": (v6(6, TCP), Flow(6, A6, 40000, B6, 443)),
    "tcp with options": (v4(6, TCP[:12] + b"\x60" + TCP[13:] + bytes(4)), Flow(6, A4, 40000, B4, 443)),
    "udp v4": (v4(17, UDP), Flow(17, A4, 40000, B4, 443)),
    "udp v6": (v6(17, UDP), Flow(17, A6, 40000, B6, 443)),
    "don't fragment": (v4(6, TCP, fragment=0x4000), Flow(6, A4, 40000, B4, 443)),
    "record route": (v4(6, TCP, options=bytes([7, 7, 4, 0, 0, 0, 0, 0])), Flow(6, A4, 40000, B4, 443)),
    "no operation": (v4(6, TCP, options=b"\1\1\1\0"), Flow(6, A4, 40000, B4, 443)),
    "ping v4": (v4(1, PING4), Flow(Proto.ICMP, A4, 0x1234, B4, 0)),
    "ping v6": (v6(58, PING6), Flow(Proto.ICMPV6, A6, 0x1234, B6, 0)),
    "gre": (v4(47, bytes(8)), Flow(47, A4, 0, B4, 0)),
    "ip in ip": (v4(4, v4(6, TCP)), Flow(4, A4, 0, B4, 0)),
    "esp v6": (v6(50, bytes(16)), Flow(50, A6, 0, B6, 0)),
    "authenticated": (v6(51, bytes([6, 4]) + bytes(22) + TCP), Flow(51, A6, 0, B6, 0)),
    "no next header": (v6(59, b""), Flow(59, A6, 0, B6, 0)),
    "empty of an unknown protocol": (v4(253, b""), Flow(253, A4, 0, B4, 0)),
    "hop-by-hop": (v6(0, extension(6) + TCP), Flow(6, A6, 40000, B6, 443)),
    "hop-by-hop, destination": (v6(0, extension(60) + extension(17) + UDP), Flow(17, A6, 40000, B6, 443)),
    "longer than what is copied": (v4(6, TCP + bytes(5000))[:COPIED], Flow(6, A4, 40000, B4, 443)),
}

BAD = {
    "nothing": (b"", "shorter than an IP header"),
    "version 5": (b"\x50" + bytes(40), "IP version 5"),
    "version 0": (bytes(60), "IP version 0"),
    "v4 header of 16": (b"\x44" + v4(6, TCP)[1:], "bad IPv4 header length"),
    "v4 header over its packet": (b"\x4f" + v4(6, TCP)[1:], "bad IPv4 header length"),
    "v4 total 0": (v4(6, TCP, total=0), "bad IPv4 header length"),
    "v4 total too short": (v4(6, TCP, total=39), "40 octets where the IP header says 39"),
    "v4 total too long": (v4(6, TCP, total=41), "40 octets where the IP header says 41"),
    "copied in full and said to be shorter": (
        v4(6, TCP + bytes(COPIED), total=COPIED),
        "4040 octets where the IP header says 4000",
    ),
    "first fragment": (v4(6, TCP, fragment=0x2000), "IPv4 fragment"),
    "last fragment": (v4(6, TCP, fragment=0x0001), "IPv4 fragment"),
    "reserved flag": (v4(6, TCP, fragment=0x8000), "reserved flag"),
    "loose source route": (v4(6, TCP, options=bytes([131, 7, 4, 192, 0, 2, 9, 0])), "source route"),
    "strict source route": (v4(6, TCP, options=bytes([1, 137, 7, 4, 192, 0, 2, 9])), "source route"),
    "option of no length": (v4(6, TCP, options=bytes([7, 0, 0, 0])), "option length"),
    "option over the header": (v4(6, TCP, options=bytes([7, 5, 0, 0])), "option length"),
    "option cut off": (v4(6, TCP, options=bytes([1, 1, 1, 7])), "option length"),
    "v6 cut off": (v6(6, TCP)[:39], "truncated IPv6 header"),
    "v6 too short": (v6(6, TCP, length=19), "60 octets where the IP header says 59"),
    "v6 too long": (v6(6, TCP, length=21), "60 octets where the IP header says 61"),
    "jumbogram": (v6(0, extension(6) + TCP, length=0), "octets where the IP header says 40"),
    "from a mapped address": (v6(6, TCP, src=MAPPED), "mapped address on the wire"),
    "to a mapped address": (v6(6, TCP)[:24] + MAPPED.packed + TCP, "mapped address on the wire"),
    "routing header": (v6(43, extension(6) + TCP), "routing header"),
    "routing header behind options": (v6(60, extension(43) + extension(6) + TCP), "routing header"),
    "v6 fragment": (v6(44, extension(6) + TCP), "IPv6 fragment"),
    "v6 fragment behind options": (v6(0, extension(44) + extension(6) + TCP), "IPv6 fragment"),
    "hop-by-hop out of place": (v6(60, extension(0) + extension(6) + TCP), "out of place"),
    "too many extensions": (v6(0, extension(60) * 4 + extension(6) + TCP), "too many"),
    "extension over the packet": (v6(60, bytes([6, 9]) + bytes(6)), "truncated TCP header"),
    "extension cut off": (v6(60, bytes([6, 0, 0, 0])), "truncated IPv6 extension"),
    "extension beyond what is copied": (
        v6(0, extension(60, 2040) + extension(6, 2040) + TCP)[:COPIED],
        "truncated TCP header",
    ),
    "extension over an unknown protocol": (v6(60, bytes([253, 9]) + bytes(6)), "longer than the packet"),
    "tcp cut off": (v4(6, TCP[:19]), "truncated TCP header"),
    "tcp header of 16": (v4(6, TCP[:12] + b"\x40" + TCP[13:]), "bad TCP header length"),
    "tcp header over its packet": (v4(6, TCP[:12] + b"\x60" + TCP[13:]), "bad TCP header length"),
    "tcp to port 0": (v4(6, TCP[:2] + b"\0\0" + TCP[4:]), "port 0"),
    "tcp from port 0": (v6(6, b"\0\0" + TCP[2:]), "port 0"),
    "udp cut off": (v4(17, UDP[:7]), "truncated UDP header"),
    "udp too short": (v4(17, UDP[:4] + b"\0\x0b" + UDP[6:]), "bad UDP length"),
    "udp too long": (v6(17, UDP[:4] + b"\0\x0d" + UDP[6:]), "bad UDP length"),
    "udp length 0": (v6(17, UDP[:4] + b"\0\0" + UDP[6:]), "bad UDP length"),
    "udp to port 0": (v4(17, UDP[:2] + b"\0\0" + UDP[4:]), "port 0"),
    "ping v4 cut off": (v4(1, PING4[:7]), "truncated ICMP"),
    "echo reply": (v4(1, bytes(8)), "ICMP type 0 code 0"),
    "unreachable": (v4(1, bytes([3, 1]) + bytes(30)), "ICMP type 3 code 1"),
    "echo request with a code": (v4(1, bytes([8, 1]) + bytes(6)), "ICMP type 8 code 1"),
    "neighbour advertisement": (v6(58, bytes([136, 0]) + bytes(22)), "ICMP type 136 code 0"),
    "icmp in v6": (v6(1, PING4), "the other IP version"),
    "icmpv6 in v4": (v4(58, PING6), "the other IP version"),
}


@pytest.mark.parametrize(("data", "flow"), GOOD.values(), ids=GOOD)
def test_a_packet_is_read(data: bytes, flow: Flow) -> None:
    assert parse_packet(data) == flow
    assert parse_packet(memoryview(data)) == flow


@pytest.mark.parametrize(("data", "problem"), BAD.values(), ids=BAD)
def test_a_packet_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(PacketError, match=problem):
        parse_packet(data)


@pytest.mark.parametrize(
    "data", [data for data, _ in GOOD.values() if len(data) < COPIED], ids=lambda data: data.hex()[:8]
)
def test_no_packet_is_read_with_its_end_missing_or_with_more(data: bytes) -> None:
    for size in range(len(data)):
        with pytest.raises(PacketError):
            parse_packet(data[:size])
    with pytest.raises(PacketError):
        parse_packet(data + b"\0")


def outcome(data: bytes) -> Flow | None:
    """The only two that there may be."""
    try:
        return parse_packet(data)
    except PacketError:
        return None


@given(st.binary(max_size=COPIED + 100))
def test_any_bytes_are_a_flow_or_refused(data: bytes) -> None:
    outcome(data)


@given(st.sampled_from([data for data, _ in (*GOOD.values(), *BAD.values()) if data]), st.data())
def test_any_damage_is_a_flow_or_refused(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    outcome(bytes(damaged))


ports = st.integers(1, 65535)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), ports, ports, st.binary(max_size=100))
def test_every_udp_flow_comes_back_v4(src: IPv4Address, dst: IPv4Address, sport: int, dport: int, data: bytes) -> None:
    udp = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 1, 17, 0, src.packed, dst.packed) + udp
    assert parse_packet(packet) == Flow(Proto.UDP, src, sport, dst, dport)


@given(
    st.sampled_from([6, 17, 47]),
    st.lists(st.sampled_from([8, 16, 64, 2048]), max_size=3),
    st.sampled_from([0, 1, 1400, COPIED, 20_000, 59_000]),
    st.integers(-1, 1),
)
def test_any_size_with_any_extensions_is_one_flow_or_refused(
    proto: int, extensions: list[int], size: int, lie: int
) -> None:
    """As large as what a device would cut up later (GSO), of which only the beginning is copied."""
    transport = {6: TCP + bytes(size), 17: struct.pack("!HHHH", 40000, 443, 8 + size, 0) + bytes(size)}
    payload = transport.get(proto, bytes(size))
    following = proto
    for octets in extensions:
        payload, following = extension(following, octets) + payload, 60
    length = max(0, len(payload) + lie)
    packet, lie = v6(following, payload, length=length), length - len(payload)
    seen = outcome(packet[:COPIED])
    room = sum(extensions) + 60 <= COPIED
    if lie and len(packet) <= COPIED:
        assert seen is None
    elif room and not (lie and proto == 17):
        assert seen == Flow(proto, A6, 40000 if proto != 47 else 0, B6, 443 if proto != 47 else 0)
