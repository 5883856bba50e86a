"""Connections to servers, lent by the engine.

Law: both ends' messages, and the proxy's event loop, which makes no connection of its own: it asks for each, and gets a
descriptor. So the proxy needs no right to make a socket, and leads nowhere that the engine wouldn't.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from typing import Any

import msgspec

_LARGEST = 256


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """Proxy: connect me there. `number` is of this question alone."""

    number: int
    address: str
    port: int


class Lent(msgspec.Struct, frozen=True, array_like=True):
    """Engine: here it is, as a descriptor; or the error by which there is none (errno(3))."""

    number: int
    error: int = 0


_encoder = msgspec.msgpack.Encoder()
_wanted = msgspec.msgpack.Decoder(Wanted)
_lent = msgspec.msgpack.Decoder(Lent)


def receive_wanted(lending: socket.socket) -> Wanted | None:
    """The next question; None at the end. Raises OSError, and msgspec.DecodeError for nonsense."""
    raw = lending.recv(_LARGEST)
    return _wanted.decode(raw) if raw else None


def send_lent(lending: socket.socket, lent: Lent, made: socket.socket | None = None) -> None:
    """Raises OSError."""
    socket.send_fds(lending, [_encoder.encode(lent)], [] if made is None else [made.fileno()])


class BorrowingLoop(asyncio.SelectorEventLoop):
    """An event loop that is lent its connections."""

    def __init__(self, lending: socket.socket) -> None:
        super().__init__()
        self._lending = lending
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[socket.socket]] = {}
        lending.settimeout(0)
        self.add_reader(lending.fileno(), self._receive)

    async def create_connection(  # of all the ways to call it, two are used
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, sock: Any = None, **_options: Any
    ) -> Any:
        """With a socket that is there already, or with one that is lent."""
        if sock is None:
            sock = await self._borrow(host, port)
        return await super().create_connection(protocol_factory, sock=sock)

    async def _borrow(self, address: str, port: int) -> socket.socket:
        """Raises OSError."""
        number = next(self._numbers)
        answer: asyncio.Future[socket.socket] = self.create_future()
        self._waiting[number] = answer
        try:
            self._lending.send(_encoder.encode(Wanted(number, address, port)))
            return await answer
        finally:
            del self._waiting[number]

    def _receive(self) -> None:
        raw, descriptors, _, _ = socket.recv_fds(self._lending, _LARGEST, 1, socket.MSG_CMSG_CLOEXEC)
        if not raw:  # the engine is gone; so is the gate, which ends us
            self.remove_reader(self._lending.fileno())
            return
        lent = _lent.decode(raw)
        made = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        answer = self._waiting.get(lent.number)
        if answer is None or answer.done():
            for one in made:
                one.close()
        elif made:
            answer.set_result(made[0])
        else:
            answer.set_exception(OSError(lent.error, os.strerror(lent.error)))
