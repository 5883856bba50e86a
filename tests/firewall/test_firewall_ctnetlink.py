"""Ctnetlink's messages: what is read of a connection, and what is not guessed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall import ctnetlink
from firewall.ctnetlink import Reader
from policy.values import Flow, Proto, address

MARK, TIMEOUT, ID = 8, 7, 12
V4 = Flow(Proto.TCP, address("198.18.0.2"), 40000, address("192.0.2.1"), 443)
V6 = Flow(Proto.UDP, address("2001:db8::1"), 5353, address("2001:db8::2"), 53)
PING = Flow(Proto.ICMP, address("198.18.0.2"), 77, address("192.0.2.1"), 0)
PING_V6 = Flow(Proto.ICMPV6, address("2001:db8::1"), 78, address("2001:db8::2"), 0)
SCTP = V4.but(proto=132, sport=0, dport=0)


def attribute(kind: int, value: bytes, *, nested: bool = False) -> bytes:
    header = struct.pack("=HH", 4 + len(value), kind | 0x8000 * nested)
    return header + value + bytes(-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4))


def ends(flow: Flow, ports: tuple[int, int] | None = None) -> bytes:
    first = 1 if flow.src.version == 4 else 3
    ip = attribute(first, flow.src.packed) + attribute(first + 1, flow.dst.packed)
    proto = attribute(1, bytes([flow.proto]))
    if flow in (PING, PING_V6):
        first = 4 if flow is PING else 7
        proto += attribute(first, flow.sport.to_bytes(2)) + attribute(first + 1, b"\x08") + attribute(first + 2, b"\0")
    else:
        sport, dport = ports or (flow.sport, flow.dport)
        proto += attribute(2, sport.to_bytes(2)) + attribute(3, dport.to_bytes(2))
    return attribute(1, ip, nested=True) + attribute(2, proto, nested=True)


def body(flow: Flow, *more: bytes, ports: tuple[int, int] | None = None) -> bytes:
    return bytes(4) + attribute(1, ends(flow, ports), nested=True) + b"".join(more)


REST = (number(TIMEOUT, 30), number(MARK, 0x81000007), number(ID, 0xABCD))


@pytest.mark.parametrize("flow", [V4, V6, PING, PING_V6, SCTP], ids=["v4", "v6", "ping", "ping-v6", "sctp"])
def test_a_connection_is_read(flow: Flow) -> None:
    reader = Reader()
    for _ in range(2):  # by a walk, and by what the walk found
        tracked = reader.tracked(body(flow, *REST, ports=(7, 9) if flow is SCTP else None))
        assert tracked.flow == flow
        assert tracked.mark == 0x81000007
    assert tracked.named == attribute(1, ends(flow, (7, 9) if flow is SCTP else None), nested=True) + REST[2]


def test_one_that_is_laid_out_otherwise_is_read_as_it_is() -> None:
    """The same size, and where the mark was stands what looks like one."""
    reader = Reader()
    assert reader.tracked(body(V4, *REST)).mark == 0x81000007
    other = body(V4, attribute(TIMEOUT, bytes(4) + number(MARK, 1)), number(ID, 2))
    assert len(other) == len(body(V4, *REST))
    assert reader.tracked(other).mark == 0
    assert reader.tracked(body(V4, number(ID, 2), number(MARK, 3), number(TIMEOUT, 1))).mark == 3


@pytest.mark.parametrize(
    "unreadable",
    [
        b"",
        bytes(4),
        bytes(4) + REST[1],
        body(V4, *REST)[:-4],
        body(V4) + b"\3\0\7\0",
        bytes(4) + attribute(1, attribute(1, bytes(16), nested=True), nested=True),
        bytes(4) + attribute(1, ends(V4)[:36], nested=True),
    ],
    ids=["empty", "nothing", "no-ends", "cut", "short-attribute", "no-addresses", "no-ports"],
)
def test_what_cannot_be_read_is_an_error(unreadable: bytes) -> None:
    with pytest.raises(OSError, match="ctnetlink"):
        Reader().tracked(unreadable)


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_any_octets_are_read_or_an_error(octets: bytes, more: bytes) -> None:
    reader = Reader()
    reader.tracked(body(V4, *REST))
    for each in (octets, body(V4, *REST, more), body(V6)[:40] + octets):
        try:
            tracked = reader.tracked(each)
            assert len(tracked.packed) in (13, 37)
            list(ctnetlink.messages(octets))
        except OSError:
            continue
