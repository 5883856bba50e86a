"""The UDP listener for questions from behind a host: on every address, answering from the one that was asked.

Law: a shell, as `udp` is for loopback. A reply whose source isn't the address that the question reached would find no
way back through the translation that led it here, so the kernel tells that address and is told it again (ip(7),
IP_PKTINFO; RFC 3542 section 6).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from functools import partial
from typing import Final

from policy.values import Flow, Proto, address
from resolver.core import Pending
from resolver.udp import Server
from resolver.wire import MAX_QUERY

_BATCH: Final = 64  # datagrams a wake-up
_READ: Final = MAX_QUERY + 1  # one octet more than allowed, so that what is too long shows
_ROOM: Final = 128  # for the one piece of ancillary data
_V4: Final = struct.Struct("=I4s4s")  # in_pktinfo: interface, the address here, the header's
_V6: Final = struct.Struct("=16sI")  # in6_pktinfo: the address here, interface

type _Peer = tuple[str, int] | tuple[str, int, int, int]
type _Ancillary = list[tuple[int, int, bytes]]


class WideListener:
    """Serves one UDP socket of `listeners.make_wide_listeners`, and owns it."""

    def __init__(self, sock: socket.socket, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._socket, self._server, self._loop = sock, server, loop
        self._port = int(sock.getsockname()[1])
        loop.add_reader(sock, self._readable)

    def stop_reading(self) -> None:
        self._loop.remove_reader(self._socket)

    def close(self) -> None:
        self.stop_reading()
        self._socket.close()

    def _readable(self) -> None:
        now = self._server.clock()
        for _ in range(_BATCH):
            try:
                data, told, _, peer = self._socket.recvmsg(_READ, _ROOM)
            except BlockingIOError:
                return
            if (back := _way_back(told)) is not None:
                self._serve(data, peer, back, now)

    def _serve(self, data: bytes, peer: _Peer, back: _Way, now: float) -> None:
        client = Flow(Proto.UDP, address(peer[0].partition("%")[0]), peer[1], address(back[0]), self._port)
        result = self._server.take(data, client, now)
        send = partial(self._send, peer, back[1])
        if isinstance(result, Pending):
            self._server.forward(result, send)
        elif result is not None:
            send(result)

    def _send(self, peer: _Peer, ancillary: _Ancillary, data: bytes) -> None:
        try:
            self._socket.sendmsg([data], ancillary, 0, peer)
        except OSError:  # no room in the socket, or no way back: the client asks again, or is gone
            self._server.counters.unsent += 1


type _Way = tuple[bytes, _Ancillary]


def _way_back(told: _Ancillary) -> _Way | None:
    """The address that a datagram reached, and what has the kernel answer from there."""
    for level, kind, data in told:
        if (level, kind) == (socket.IPPROTO_IP, socket.IP_PKTINFO):
            _, here, _ = _V4.unpack_from(data)
            return here, [(level, kind, _V4.pack(0, here, bytes(4)))]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            here, interface = _V6.unpack_from(data)
            return here, [(level, kind, _V6.pack(here, interface))]
    return None
