"""The attacker's upstream: it answers each question as the scenario's reactions say, and books what arrived.

Law: sockets and order; which octets go out is `messages`', what they prove `verdict`'s.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from dnsfw.poison.messages import Arrived, Peer, compose, honest, read_question
from dnsfw.poison.records import absolute, type_number
from dnsfw.poison.scenario import Packet, Reaction
from dnsfw.poison.spoofer import Spoofer

_HONEST = "honest-"  # names that begin so are the bench's own: answered truly, and not booked
_LOOPS = 100  # times that a question is given back at most: the bench is no flood
_BATCH = 64

type Kind = tuple[str | None, str | None, str | None]  # a reaction's name, type and transport


@dataclass(frozen=True, slots=True)
class Place:
    """Where the upstream is, from where a stranger speaks (None: nowhere), and where the target listens."""

    upstream: Peer
    stranger: str | None
    target: Peer


@dataclass(slots=True)
class Script:
    """The reactions, as yet not all used: pure."""

    reactions: Sequence[Reaction]
    zone: str
    _seen: Counter[Kind] = field(default_factory=Counter)

    def reaction(self, arrived: Arrived) -> Reaction | None:
        """The first that fits this question, the n-th of its kind; None: be honest."""
        fitting = [reaction for reaction in self.reactions if self._fits(reaction, arrived)]
        self._seen.update({(reaction.name, reaction.type, reaction.over) for reaction in fitting})
        for reaction in fitting:
            if reaction.nth in (None, self._seen[reaction.name, reaction.type, reaction.over]):
                return reaction
        return None

    def _fits(self, reaction: Reaction, arrived: Arrived) -> bool:
        return (
            (reaction.name is None or absolute(reaction.name, self.zone).lower() == arrived.text)
            and (reaction.type is None or type_number(reaction.type) == arrived.qtype)
            and reaction.over in (None, arrived.over)
        )


class Upstream:
    """Serves on `place.upstream`, UDP and TCP, while entered. `arrived` is what it was asked, in order."""

    def __init__(self, place: Place, script: Script, spoofer: Spoofer | None) -> None:
        self.arrived: list[Arrived] = []
        self._place, self._script, self._spoofer = place, script, spoofer
        self._tasks = set[asyncio.Task[None]]()
        self._loops = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self._place.upstream)
        self._stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._stranger.bind((self._place.upstream[0], 0))
        self._server = await asyncio.start_server(self._converse, *self._place.upstream, reuse_address=True)
        self._loop.add_reader(self._socket, self._readable)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.remove_reader(self._socket)
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()
        self._stranger.close()

    def _readable(self) -> None:
        for _ in range(_BATCH):
            try:
                data, peer = self._socket.recvfrom(0x10000)
            except OSError:  # nothing more, or an ICMP error for one of ours
                return
            if arrived := read_question(data, peer, "udp"):
                self._start(self._react(arrived))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _react(self, arrived: Arrived) -> None:
        reaction = self._book(arrived)
        if reaction is None:
            self._socket.sendto(honest(arrived), arrived.peer)
            return
        if reaction.loop and self._loops < _LOOPS:
            self._loops += 1
            self._stranger.sendto(arrived.data, self._place.target)
        for packet in reaction.send:
            await asyncio.sleep(packet.delay)
            await self._send(packet, arrived)

    async def _send(self, packet: Packet, arrived: Arrived) -> None:
        if packet.flood is not None:
            await self._flood(packet.flood, packet, arrived)
            return
        data = compose(packet, arrived, self._script.zone)
        for _ in range(packet.times):
            self._send_once(packet, arrived, data)

    def _send_once(self, packet: Packet, arrived: Arrived, data: bytes) -> None:
        with suppress(OSError):  # too long for a datagram, or the port is closed already
            match packet.origin:
                case "upstream":
                    self._socket.sendto(data, arrived.peer)
                case "port":
                    self._stranger.sendto(data, arrived.peer)
                case "address" if self._spoofer and self._place.stranger:
                    self._spoofer.send((self._place.stranger, self._place.upstream[1]), arrived.peer, data)
                case "icmp" if self._spoofer:
                    self._spoofer.unreachable(self._place.upstream, arrived.peer)

    async def _flood(self, kind: str, packet: Packet, arrived: Arrived) -> None:
        """Every message differs from the first in its id alone."""
        rest = compose(packet, arrived, self._script.zone)[2:]
        if self._spoofer:
            await self._spoofer.flood(kind, self._place.upstream, arrived.peer, lambda ident: ident.to_bytes(2) + rest)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                peer: Peer = writer.get_extra_info("peername")[:2]
                while True:
                    size = int.from_bytes(await reader.readexactly(2))
                    if arrived := read_question(await reader.readexactly(size), peer, "tcp"):
                        await self._answer(arrived, writer)
        finally:
            writer.close()

    def _book(self, arrived: Arrived) -> Reaction | None:
        if arrived.text.startswith(_HONEST) or arrived.name == b"\0":  # priming (RFC 8109) is no one's question
            return None
        self.arrived.append(arrived)
        return self._script.reaction(arrived)

    async def _answer(self, arrived: Arrived, writer: asyncio.StreamWriter) -> None:
        reaction = self._book(arrived)
        if reaction is None:
            _write(writer, honest(arrived))
        elif reaction.hang_up:
            writer.close()
            raise ConnectionAbortedError
        else:
            for packet in reaction.send:
                await asyncio.sleep(packet.delay)
                for _ in range(packet.times):
                    _write(writer, compose(packet, arrived, self._script.zone))
        await writer.drain()


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(len(data).to_bytes(2) + data)
