"""The engine's end of the control socket.

Law: one question, one answer, one connection. Whoever is slow, silent or talks nonsense is cut off after a moment, and
keeps nobody else from being heard: places are few, and root's are its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dnsfw.control import SOCKET, framing
from dnsfw.control.access import Access
from dnsfw.control.framing import NotUnderstoodError
from dnsfw.control.messages import Answer, Question, Refused
from dnsfw.errors import DnsfwError

_BACKLOG: Final = 64
_PEER: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)

type Answering = Callable[[Question], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """`places` are clients heard at once; root has as many of its own. Times in seconds: a client has `asking` for its
    question and `taking` for the answer, the guard `answering` to make it."""

    places: int = 8
    asking: float = 2.0
    answering: float = 30.0
    taking: float = 5.0


def listen(directory: Path, starter: int) -> socket.socket:
    """The socket in that directory, for root and `starter` to connect to. What a dead engine left is replaced.

    Call it while nothing else of this process makes files: the umask is the process's.
    """
    path = directory / SOCKET
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    os.chown(path, starter, -1)
    listener.listen(_BACKLOG)
    return listener


class ControlServer:
    """Asks `answering` for what `access` permits. `turned_away` counts the clients there was no place for."""

    def __init__(self, access: Access, answering: Answering, bounds: Bounds = Bounds()) -> None:
        self.turned_away = 0
        self._access = access
        self._answering = answering
        self._bounds = bounds
        self._heard = {True: 0, False: 0}  # clients, by whether they are root
        self._server: asyncio.Server | None = None

    async def serve(self, listener: socket.socket) -> None:
        """From now on; the socket is the server's to close."""
        self._server = await asyncio.start_unix_server(self._meet, sock=listener, limit=framing.LARGEST_QUESTION)

    def close(self) -> None:
        """Nobody new is heard."""
        if self._server is not None:
            self._server.close()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _uid(writer)
        is_root = peer == 0
        if self._heard[is_root] >= self._bounds.places:
            self.turned_away += 1
            writer.transport.abort()
            return
        self._heard[is_root] += 1
        try:
            await self._hear(reader, writer, peer)
        except (OSError, EOFError, TimeoutError):
            pass  # it left, or is too slow: its own affair
        finally:
            self._heard[is_root] -= 1
            writer.transport.abort()  # what it has not taken by now it never will

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: int) -> None:
        async with asyncio.timeout(self._bounds.asking):
            said = await self._said(reader)
        if isinstance(said, Refused):
            answer: Answer = said
        else:
            async with asyncio.timeout(self._bounds.answering):
                answer = self._access.refusal(said[0], peer, said[1]) or await self._answer(said[0])
        async with asyncio.timeout(self._bounds.taking):
            writer.transport.set_write_buffer_limits(0)  # drained is taken, all of it
            writer.write(framing.answer(answer))
            await writer.drain()

    async def _said(self, reader: asyncio.StreamReader) -> tuple[Question, str] | Refused:
        try:
            prefix = await reader.readexactly(framing.PREFIX)
            body = await reader.readexactly(framing.length(prefix, framing.LARGEST_QUESTION))
            return framing.read_question(body)
        except NotUnderstoodError as error:
            return Refused(f"That was not understood: {error}.", "Is this dnsfw of another version than the guard's?")

    async def _answer(self, question: Question) -> Answer:
        try:
            return await self._answering(question)
        except DnsfwError as error:
            return Refused(error.problem, error.remedy)


def _uid(writer: asyncio.StreamWriter) -> int:
    """The peer's, as it was when it connected; what the kernel does not say is nobody's."""
    with suppress(OSError):
        sock: socket.socket = writer.get_extra_info("socket")
        _, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        return int(uid)
    return -1
