"""The clients: they ask as the scenario says and book every reply, with the time that it took.

Law: sockets and clocks; nothing is judged here.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from itertools import groupby

from dnsfw.poison.messages import Peer, fill
from dnsfw.poison.records import absolute, encode_name, type_number
from dnsfw.poison.scenario import Ask

_SILENCE = 0.3  # seconds to listen where nothing may come
_BURST = 32  # datagrams
_DO = 0x8000


@dataclass(frozen=True, slots=True)
class Answer:
    data: bytes
    seconds: float


@dataclass(slots=True)
class Asked:
    """One message of a client's and all that came back under its id. `section` is None where it is raw."""

    ask: Ask
    message: bytes
    section: bytes | None
    answers: list[Answer] = field(default_factory=list)

    @property
    def id(self) -> bytes:
        return self.message[:2]


async def ask_all(asks: Sequence[Ask], zone: str, target: Peer) -> list[Asked]:
    """Put the questions one after the other; those on one connection together."""
    out = []
    for _, group in groupby(enumerate(asks), key=lambda each: each[1].connection or each[0]):
        together = [ask for _, ask in group]
        await asyncio.sleep(together[0].pause)
        asked = [one for ask in together for one in _messages(ask, zone)]
        try:
            await (_over_tcp if together[0].over == "tcp" else _over_udp)(asked, target)
        except OSError as error:
            if not isinstance(error, ConnectionError | TimeoutError):
                raise
        out += asked
    return out


def _messages(ask: Ask, zone: str) -> list[Asked]:
    """Each with an id of its own."""
    made = []
    for i, ident in enumerate(random.sample(range(0x10000), ask.times)):
        section = encode_name(absolute(ask.name.format(i=i), zone)) + struct.pack("!HH", type_number(ask.type), 1)
        if ask.raw is None:
            opt = b"" if ask.edns is None else struct.pack("!BHHIH", 0, 41, ask.edns, _DO if ask.do else 0, 0)
            message = struct.pack("!6H", ident, 0x0100, 1, 0, 0, len(opt) > 0) + section + opt
            made.append(Asked(ask, message, section))
        else:
            made.append(Asked(ask, fill(ask.raw, ident, section, section[:-4]), None))
    return made


async def _over_udp(asked: Sequence[Asked], target: Peer) -> None:
    """All at once, from one socket; until each has its reply or the time is up."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        opened.connect(target)
        book = _Book(asked)
        for count, one in enumerate(asked):
            with suppress(ConnectionRefusedError):
                opened.send(one.message)
            if count % _BURST == _BURST - 1:
                await asyncio.sleep(0.001)  # or the target's socket has no room
        while (left := book.left) > 0:
            try:
                data = await asyncio.wait_for(loop.sock_recv(opened, 0x10000), left)
            except TimeoutError:
                return
            except ConnectionRefusedError:
                continue
            book.enter(data)


async def _over_tcp(asked: Sequence[Asked], target: Peer) -> None:
    """All on one connection, in one segment or in pieces."""
    ask = asked[0].ask
    async with AsyncExitStack() as stack:
        for _ in range(ask.idle):
            idle = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            idle.connect_ex(target)
            await asyncio.sleep(0)
        async with asyncio.timeout(ask.wait):
            reader, writer = await asyncio.open_connection(*target)
        stack.callback(writer.close)
        book = _Book(asked)
        await _write(writer, b"".join(len(one.message).to_bytes(2) + one.message for one in asked), ask.pieces)
        while (left := book.left) > 0:
            try:
                async with asyncio.timeout(left):
                    size = int.from_bytes(await reader.readexactly(2))
                    book.enter(await reader.readexactly(size))
            except (TimeoutError, asyncio.IncompleteReadError):
                return


async def _write(writer: asyncio.StreamWriter, data: bytes, piece: int) -> None:
    if not piece:
        writer.write(data)
        return
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(data), piece):
        writer.write(data[at : at + piece])
        await asyncio.sleep(0)


class _Book:
    """Whose replies are in, and how long to wait for more."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self._by_id = {one.id: one for one in asked}
        self._began = time.monotonic()
        self._until = self._began + max(one.ask.wait for one in asked)
        self._heard_out = self._began + _SILENCE

    @property
    def left(self) -> float:
        """Seconds to wait; none if all replies are in, and those that may not come have had their time to."""
        now = time.monotonic()
        if any(not one.answers and not one.ask.expect.silent for one in self._by_id.values()):
            return self._until - now
        return self._heard_out - now if any(one.ask.expect.silent for one in self._by_id.values()) else 0.0

    def enter(self, data: bytes) -> None:
        """A reply under an id that nobody used is one to all: nobody can have asked for it."""
        answer = Answer(data, time.monotonic() - self._began)
        one = self._by_id.get(data[:2])
        for whose in [one] if one else self._by_id.values():
            whose.answers.append(answer)
