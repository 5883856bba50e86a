"""Everything but TCP and UDP that could leave a guarded namespace, sent by real raw sockets."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from policy.values import Action, Proto
from tests.firewall.street import (
    ALLOWED,
    BOTH,
    KERNEL,
    PATIENCE,
    STRANGER,
    Street,
    guarding,
    nothing_arrived,
)

pytestmark = KERNEL


RAW = {
    "sctp": (132, struct.pack("!HHIIBBHIIHHI", 9, ALLOWED, 0, 0, 1, 0, 20, 1, 65536, 1, 1, 1)),  # an INIT chunk
    "gre": (47, b"\x00\x00\x08\x00" + bytes(20)),
    "udp-lite": (136, struct.pack("!HHHH", 9, ALLOWED, 8, 1)),
    "esp": (50, bytes(24)),
    "ip-in-ip": (4, b"\x45\0\0\x14" + bytes(16)),
    "ipv6-in-ip": (41, b"\x60" + bytes(39)),
    "l2tp": (115, bytes(24)),
    "experiment": (253, b"exfiltration"),
}


@BOTH
@pytest.mark.parametrize("what", RAW)
def test_other_protocols_are_judged(street: Street, version: int, what: str) -> None:
    proto, payload = RAW[what]
    with (
        street.outside.socket(version, socket.SOCK_RAW, proto) as sink,
        guarding(street, judge=lambda flow: Action.ALLOW if flow.proto == Proto.TCP else Action.DENY) as guard,
        street.inside.socket(version, socket.SOCK_RAW, proto) as client,
    ):
        client.sendto(payload, (STRANGER[version], 0))
        (flow,) = guard.listener.seen(1)
        assert (flow.proto, flow.sport, flow.dport) == (proto, 0, 0)
        assert guard.table.counters()["refused"] == 1
        sink.settimeout(0)
        with pytest.raises(BlockingIOError):
            sink.recv(1)


def echo(version: int, number: int) -> bytes:
    """An echo request; the kernel fills in ICMPv6's checksum only."""
    if version == 6:
        return struct.pack("!BBHHH", 128, 0, 0, 77, number)
    words = (8 << 8, 77, number)
    return struct.pack("!BBHHH", 8, 0, ~sum(words) & 0xFFFF, 77, number)


@BOTH
@pytest.mark.parametrize(("action", "judged"), [(Action.ALLOW, 1), (Action.ONCE, 3)], ids=str)
def test_an_allowed_ping_is_judged_once_or_each_time(street: Street, version: int, action: Action, judged: int) -> None:
    proto = Proto.ICMP if version == 4 else Proto.ICMPV6
    with guarding(street, judge=lambda _: action) as guard:
        with street.inside.socket(version, socket.SOCK_RAW, proto) as client:
            client.connect((STRANGER[version], 0))
            for number in range(3):
                client.send(echo(version, number))
                answer = client.recv(100)
                assert answer[-2:] == struct.pack("!H", number)
        flows = guard.listener.flows
        assert [(flow.proto, flow.sport, flow.dport) for flow in flows] == [(proto, 77, 0)] * judged


@BOTH
@pytest.mark.parametrize("what", ["echo", "other"])
def test_denied_and_other_icmp_does_not_leave(street: Street, version: int, what: str) -> None:
    proto = Proto.ICMP if version == 4 else Proto.ICMPV6
    packet = echo(version, 1)
    if what == "other":  # a timestamp request; RFC 4620's node information query
        packet = bytes([13 if version == 4 else 139, 0]) + packet[2:] + bytes(12)
    with (
        street.outside.socket(version, socket.SOCK_RAW, proto) as sink,
        guarding(street) as guard,
        street.inside.socket(version, socket.SOCK_RAW, proto) as client,
    ):
        client.sendto(packet, (STRANGER[version], 0))
        guard.listener.seen(1)
        assert len(guard.listener.malformed) == (what == "other")
        assert guard.table.counters()["refused"] == 1
        sink.settimeout(0)
        received = []
        while True:
            try:
                received.append(sink.recv(200))
            except BlockingIOError:
                break
        assert not any(data.endswith(packet[4:]) for data in received), received


def test_a_neighbour_advertisement_of_a_program_s_own_stays_on_the_link(street: Street) -> None:
    advertisement = struct.pack("!BBHI16s", 136, 0, 0, 0, b"sixteen octets!!") + b"exfiltration"
    with guarding(street) as guard, street.inside.socket(6, socket.SOCK_RAW, Proto.ICMPV6) as client:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        client.sendto(advertisement, (STRANGER[6], 0))
        guard.listener.seen(1)
        assert [str(error) for error in guard.listener.malformed] == ["ICMP type 136 code 0"]


def test_neighbour_discovery_works_where_all_is_denied(street: Street) -> None:
    with guarding(street, judge=lambda _: Action.DENY) as guard:
        with street.outside.udp(6) as outside:
            street.inside.run("ip", "-6", "neigh", "flush", "dev", "veth0")
            street.outside.run("ip", "-6", "neigh", "flush", "dev", "veth0")
            outside.sendto(b"x", (street.inside.at[6], 9))  # our kernel must advertise itself, and is asked about
            deadline = time.monotonic() + PATIENCE
            while "lladdr" not in (seen := street.outside.run("ip", "-6", "neigh", "show", street.inside.at[6])):
                assert time.monotonic() < deadline, seen
                time.sleep(0.01)
        assert guard.listener.flows == []
        assert guard.listener.malformed == []


def test_a_source_route_is_never_covered_by_a_lease(street: Street) -> None:
    far = (STRANGER[4], ALLOWED)
    with street.outside.receive(4, *far) as sink, guarding(street) as guard, street.inside.udp(4) as client:
        client.bind((street.inside.at[4], 0))
        client.sendto(b"x", far)
        assert sink.recv(10) == b"x"
        # The kernel sends to the route's first hop, and puts our destination at its end.
        client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([131, 7, 4]) + socket.inet_aton(far[0]) + b"\0")
        client.sendto(b"y", ("198.51.100.66", ALLOWED))
        guard.listener.seen(2)
        assert [str(error) for error in guard.listener.malformed] == ["IPv4 source route"]
        assert nothing_arrived(sink)


def test_fragments_that_escape_reassembly_are_dropped(street: Street) -> None:
    """A raw socket may ask for that (IP_NODEFRAG); conntrack then finds them invalid."""
    nodefrag = 22  # <linux/in.h>
    with (
        street.outside.socket(4, socket.SOCK_RAW, 253) as sink,
        guarding(street, judge=lambda _: Action.ALLOW) as guard,
        street.inside.socket(4, socket.SOCK_RAW, socket.IPPROTO_RAW) as client,
    ):
        client.setsockopt(socket.IPPROTO_IP, nodefrag, 1)
        here, there = socket.inet_aton(street.inside.at[4]), socket.inet_aton(STRANGER[4])
        for fragment in (0x2000, 0x2001, 0x0002):  # the first, one in the middle, the last
            header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, fragment, 64, 253, 0, here, there)
            with pytest.raises(PermissionError):
                client.sendto(header + b"fragment", (STRANGER[4], 0))
        assert guard.table.counters()["invalid"] == 3
        sink.settimeout(0)
        with pytest.raises(BlockingIOError):
            sink.recv(1)
