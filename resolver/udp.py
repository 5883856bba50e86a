"""The UDP listener: datagrams off a socket, replies back on it.

Law: a shell. It moves bytes and builds the `Flow` that they came on; what they mean is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, Protocol

from policy.values import Flow, Proto, address
from resolver.core import Counters, Pending
from resolver.wire import MAX_QUERY

_BATCH: Final = 64  # datagrams a wake-up: enough to spread its cost, few enough to let others have the loop
_READ: Final = MAX_QUERY + 1  # one octet more than allowed, so that what is too long shows

type Send = Callable[[bytes], None]


class Server(Protocol):
    """What a listener needs of the resolver."""

    counters: Counters

    def take(self, data: bytes, client: Flow, now: float) -> bytes | Pending | None: ...
    def forward(self, pending: Pending, send: Send) -> None: ...
    def clock(self) -> float: ...


class UdpListener:
    """Serves one bound, non-blocking UDP socket, and owns it."""

    def __init__(self, sock: socket.socket, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        host, port = sock.getsockname()[:2]
        self._socket, self._server, self._loop = sock, server, loop
        self._local = (address(host), port)
        self._address = lru_cache(maxsize=1024)(address)  # text of the few clients there are; parsing takes 2 µs
        loop.add_reader(sock, self._readable)

    def stop_reading(self) -> None:
        self._loop.remove_reader(self._socket)

    def close(self) -> None:
        self.stop_reading()
        self._socket.close()

    def _readable(self) -> None:
        now, receive = self._server.clock(), self._socket.recvfrom
        for _ in range(_BATCH):
            try:
                data, peer = receive(_READ)
            except BlockingIOError:
                return
            self._serve(data, peer, now)

    def _serve(self, data: bytes, peer: tuple[str, int], now: float) -> None:
        client = Flow(Proto.UDP, self._address(peer[0].partition("%")[0]), peer[1], *self._local)
        result = self._server.take(data, client, now)
        if isinstance(result, Pending):
            self._server.forward(result, partial(self._send, peer))
        elif result is not None:
            self._send(peer, result)

    def _send(self, peer: tuple[str, int], data: bytes) -> None:
        try:
            self._socket.sendto(data, peer)
        except OSError:  # no room in the socket, or no way back: the client asks again, or is gone
            self._server.counters.unsent += 1
