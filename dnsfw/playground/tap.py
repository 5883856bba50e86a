"""The tap on the wire between the laptop and the internet.

Law: the only packet socket. It sees every frame that arrives, whatever its protocol and whether any server wants
it, so nothing can get past the judge by being odd.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Self

from dnsfw.playground.arrival import Book, Endpoint

_ETH_P_ALL = 3  # <linux/if_ether.h>
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_PACKET_OUTGOING = 4  # <linux/if_packet.h>
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_RCVBUFFORCE = 33
_BUFFER = 16 << 20  # bytes: a burst while the judge is busy with its servers
_FRAMES_A_WAKEUP = 64


class Tap:
    """Records each frame that arrives on `interface` as a "frame". Raises OSError."""

    def __init__(self, book: Book, interface: str) -> None:
        self._book = book
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.bind((interface, _ETH_P_ALL))
        self.missed = 0

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._socket, self._drain)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def catch_up(self) -> None:
        """Record what waits in the socket, and count in `missed` what the kernel had no room for (packet(7))."""
        while self._drain() == _FRAMES_A_WAKEUP:
            pass
        _, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self.missed += dropped  # reading it sets the kernel's count to zero

    def _drain(self) -> int:
        for count in range(_FRAMES_A_WAKEUP):
            try:
                frame, (_, _, kind, _, _) = self._socket.recvfrom(1 << 17)
            except BlockingIOError:
                return count
            if kind != _PACKET_OUTGOING:
                self._book.record("frame", *_ends(frame), frame)
        return _FRAMES_A_WAKEUP


def _ends(frame: bytes) -> tuple[Endpoint, Endpoint]:
    """The IP addresses of an Ethernet frame; its hardware addresses where it is not whole IP."""
    kind = int.from_bytes(frame[12:14])
    if kind == _ETH_P_IP and len(frame) >= 34:
        return (str(IPv4Address(frame[26:30])), 0), (str(IPv4Address(frame[30:34])), 0)
    if kind == _ETH_P_IPV6 and len(frame) >= 54:
        return (str(IPv6Address(frame[22:38])), 0), (str(IPv6Address(frame[38:54])), 0)
    return (frame[6:12].hex(":"), 0), (frame[0:6].hex(":"), 0)
