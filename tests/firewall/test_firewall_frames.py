"""Frames that programs hand to a device past IP: real packet sockets, a tap on the far side."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from itertools import product

import pytest

from firewall.frames import FRAMES_TABLE, Frames, LinkWatch, covering, render_frames
from firewall.marks import Mark
from firewall.ruleset import counters
from tests.firewall.street import ALLOWED, BOTH, KERNEL, PATIENCE, STRANGER, Street

ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_8021Q, ETH_P_IPV6 = 0x0003, 0x0800, 0x0806, 0x8100, 0x86DD  # <linux/if_ether.h>
PACKET_QDISC_BYPASS = 20  # <linux/if_packet.h>
SOL_PACKET, SO_MARK = 263, 36
EVERYBODY = b"\xff" * 6
SECRET = b"exfiltration"


def test_the_table_names_each_device_once() -> None:
    text = render_frames([(2, "eth0"), (7, "wlp2s0.5")])
    assert text.startswith(f"table {FRAMES_TABLE}\ndelete table {FRAMES_TABLE}\n")
    assert text.count("hook egress device") == 2
    assert 'hook egress device "wlp2s0.5" priority 0; policy accept;' in text


@pytest.mark.parametrize("name", ['a"b', "a b", "", "a;b", "ä"])
def test_a_device_that_nft_has_no_word_for_is_no_text(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        covering((3, name))


@pytest.fixture
def framed(street: Street) -> Iterator[Street]:
    """A street with the table in force inside."""
    with street.inside.namespace.entered(), Frames():
        yield street


def packet_socket(end: str, kind: socket.SocketKind = socket.SOCK_RAW) -> socket.socket:
    """In the current namespace, at the device `end`."""
    made = socket.socket(socket.AF_PACKET, kind, socket.htons(ETH_P_ALL))
    made.bind((end, ETH_P_ALL))
    made.settimeout(PATIENCE)
    return made


def frame(kind: int, payload: bytes) -> bytes:
    return EVERYBODY + b"\x02\0\0\0\0\x01" + struct.pack("!H", kind) + payload


def datagram(version: int, ports: tuple[int, int] = (ALLOWED, ALLOWED), to: str = "") -> bytes:
    """An IP packet with the secret in it."""
    udp = struct.pack("!4H", *ports, 8 + len(SECRET), 0) + SECRET
    far = socket.inet_pton(socket.AF_INET6 if version == 6 else socket.AF_INET, to or STRANGER[version])
    if version == 6:
        return struct.pack("!IHBB16s16s", 0x6000_0000, len(udp), 17, 64, bytes(16), far) + udp
    return struct.pack("!BxHxxHBBH4s4s", 0x45, 20 + len(udp), 0, 64, 17, 0, bytes(4), far) + udp


TYPES = {4: ETH_P_IP, 6: ETH_P_IPV6}
ROUTED = {f"v{version}": frame(TYPES[version], datagram(version)) for version in (4, 6)} | {
    "vlan": frame(ETH_P_8021Q, struct.pack("!HH", 5, ETH_P_IP) + datagram(4)),
    "unknown": frame(0x88B5, SECRET),  # for experiments (IEEE 802)
    "dhcp-unicast": frame(ETH_P_IP, datagram(4, (68, 67))),
    "dhcp-in-a-vlan": frame(ETH_P_8021Q, struct.pack("!HH", 5, ETH_P_IP) + datagram(4, (68, 67), "255.255.255.255")),
}
NEEDED = {
    "arp": frame(ETH_P_ARP, SECRET.ljust(28)),
    "802.1x": frame(0x888E, SECRET),
    "lldp": frame(0x88CC, SECRET),
    "dhcp": frame(ETH_P_IP, datagram(4, (68, 67), "255.255.255.255")),
}
OPTIONS: dict[str, tuple[tuple[int, int, int | bytes], ...]] = {
    "plain": (),
    "past-the-queue": ((SOL_PACKET, PACKET_QDISC_BYPASS, 1),),
    "marked": ((socket.SOL_SOCKET, SO_MARK, struct.pack("=I", Mark.ALLOW)),),
}


def arrived(street: Street, tap: socket.socket) -> list[bytes]:
    """What the tap saw with the secret in it, up to an ordinary datagram that is sent last."""
    with street.inside.udp(4) as sock:
        sock.sendto(b"the last one", (street.outside.at[4], ALLOWED))
    seen = []
    while not (data := tap.recv(2000)).endswith(b"the last one"):
        seen.append(data)
    return [data for data in seen if SECRET in data]


@KERNEL
@pytest.mark.parametrize(("what", "how"), list(product(ROUTED, OPTIONS)))
def test_a_program_s_frame_does_not_leave(framed: Street, what: str, how: str) -> None:
    with framed.outside.namespace.entered():
        tap = packet_socket("veth0")
    with tap, framed.inside.namespace.entered(), packet_socket("veth0") as sending:
        for option in OPTIONS[how]:
            sending.setsockopt(*option)
        with pytest.raises(OSError, match="No buffer space"):
            sending.send(ROUTED[what])
        assert arrived(framed, tap) == []
        listed = framed.inside.run("nft", "list", "counters", "table", *FRAMES_TABLE.split())
        assert counters(listed) == {"framed": 1}


@KERNEL
@BOTH
def test_nor_does_a_packet_that_the_kernel_frames(framed: Street, version: int) -> None:
    with framed.outside.namespace.entered():
        tap = packet_socket("veth0")
    with tap, framed.inside.namespace.entered(), packet_socket("veth0", socket.SOCK_DGRAM) as sending:
        with pytest.raises(OSError, match="No buffer space"):
            sending.sendto(datagram(version), ("veth0", TYPES[version], 0, 0, EVERYBODY))
        assert arrived(framed, tap) == []


@KERNEL
def test_the_type_that_counts_is_the_frame_s_own(framed: Street) -> None:
    """What the socket says of it is the program's choice."""
    disguised = frame(0x88B5, datagram(4, (68, 67), "255.255.255.255"))
    with framed.outside.namespace.entered():
        tap = packet_socket("veth0")
    with tap, framed.inside.namespace.entered(), packet_socket("veth0") as sending:
        with pytest.raises(OSError, match="No buffer space"):
            sending.sendto(disguised, ("veth0", ETH_P_IP))
        assert arrived(framed, tap) == []


@KERNEL
@pytest.mark.parametrize("what", NEEDED)
def test_what_keeps_a_link_alive_leaves(framed: Street, what: str) -> None:
    with framed.outside.namespace.entered():
        tap = packet_socket("veth0")
    with tap, framed.inside.namespace.entered(), packet_socket("veth0") as sending:
        sending.send(NEEDED[what])
        assert arrived(framed, tap) == [NEEDED[what]]


@KERNEL
@BOTH
def test_what_came_by_way_of_ip_is_not_this_table_s_business(framed: Street, version: int) -> None:
    """It was judged there. Through a bridge it loses nothing that tells."""
    far = (framed.outside.at[version], ALLOWED)
    with framed.outside.receive(version, *far) as sink, framed.inside.udp(version) as sock:
        sock.sendto(b"x", far)
        assert sink.recv(10) == b"x"
        framed.inside.run("sh", "-c", BRIDGE)
        with framed.inside.namespace.entered(), LinkWatch() as watch:
            assert watch.update() == []
        sock.sendto(b"y", far)
        assert sink.recv(10) == b"y"


# The street's device becomes a port of a bridge, which takes its addresses.
BRIDGE = """
ip link add br0 type bridge forward_delay 0 && ip link set br0 up && ip link set veth0 master br0
ip addr add 10.77.0.1/24 dev br0 && ip addr add fd77::1/64 dev br0 nodad
ip addr flush dev veth0 scope global
until ip link show br0 | grep -q 'state UP'; do sleep 0.01; done
"""


@KERNEL
def test_a_device_that_appears_later_is_covered(framed: Street) -> None:
    with framed.inside.namespace.entered(), LinkWatch() as watch:
        assert watch.update() == []
        framed.inside.run("ip", "link", "add", "later", "type", "veth", "peer", "name", "other")
        assert select.select([watch], [], [], PATIENCE)[0]
        assert watch.update() == []
        for name in ("later", "other"):
            framed.inside.run("ip", "link", "set", name, "up")
        with packet_socket("later") as sending, pytest.raises(OSError, match="No buffer space"):
            sending.send(ROUTED["v4"])


@KERNEL
def test_a_device_that_can_t_be_covered_is_told_of(framed: Street) -> None:
    with framed.inside.namespace.entered(), LinkWatch() as watch:
        framed.inside.run("ip", "link", "add", 'a"b', "type", "bridge")
        (left,) = watch.update()
        assert left[1] == 'a"b'
        assert watch.update() == []  # told of once


@KERNEL
def test_without_the_table_there_is_nothing_to_watch(street: Street) -> None:
    with street.inside.namespace.entered(), LinkWatch() as watch:
        assert watch.update() == []
        assert street.inside.run("nft", "list", "ruleset") == ""


@KERNEL
def test_others_tables_stay_and_ours_goes(street: Street) -> None:
    street.inside.run("nft", "table netdev theirs { chain out { type filter hook egress device veth0 priority 0; }; }")
    before = street.inside.run("nft", "list", "ruleset")
    with street.inside.namespace.entered():
        Frames().__enter__()  # a killed holder's
        with Frames():
            assert "table netdev dnsfw" in street.inside.run("nft", "list", "ruleset")
    assert street.inside.run("nft", "list", "ruleset") == before
