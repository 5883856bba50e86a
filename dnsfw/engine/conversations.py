"""The engine's conversations with proxies, one for each that lives.

Law: takes what the keeper hands over, and knows whether a proxy is at work: that is all there is to know of one. What
is said in a conversation is for `requests`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from dnsfw.channel import Channel, Turned
from dnsfw.control.messages import ProxyState
from dnsfw.journal.lifecycle import Life, Turn

type Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, socket.socket], Awaitable[None]]
_ENDS = 2  # descriptors that come with a proxy: its conversation, and by which it is lent connections


class Conversations:
    """`answer` holds one conversation, to its end; `told` hears of proxies' turns."""

    def __init__(self, keeper: Channel, told: Callable[[Life], None]) -> None:
        self._keeper = keeper
        self._told = told
        self._held: set[asyncio.Task[None]] = set()
        self._deaths = 0
        self._last = ""

    def held(self) -> bool:
        """Is a proxy at work?"""
        return bool(self._held)

    def state(self, hosts: tuple[str, ...]) -> Callable[[], ProxyState | None]:
        """What `status` tells of a proxy for these; of none if there are none."""
        return lambda: ProxyState(hosts, self.held(), self._deaths, self._last) if hosts else None

    def serve(self, loop: asyncio.AbstractEventLoop, answer: Answer) -> None:
        """From now on, and take what waited."""
        loop.add_reader(self._keeper.fileno(), self._take, loop, answer)

    def trouble(self) -> list[str]:
        """A sentence about proxies that died."""
        if not self._deaths:
            return []
        times = "once," if self._deaths == 1 else f"{self._deaths} times, the last one"
        return [f"the proxy died {times} of {self._last}; URL rules denied until it was back"]

    def close(self) -> None:
        """Take no more; those that are held end with the loop."""
        asyncio.get_running_loop().remove_reader(self._keeper.fileno())

    def _take(self, loop: asyncio.AbstractEventLoop, answer: Answer) -> None:
        with suppress(TimeoutError):
            message = self._keeper.receive(patience=0)
            if not isinstance(message, Turned):  # the supervisor is gone, and nobody else can hang up
                loop.remove_reader(self._keeper.fileno())
                return
            ends = [socket.socket(fileno=descriptor) for descriptor in self._keeper.descriptors()]
            if len(ends) == _ENDS:
                task = loop.create_task(_hold(answer, *ends))
                self._held.add(task)
                task.add_done_callback(self._ended)
            if message.life.turn is Turn.DIED:
                self._deaths, self._last = self._deaths + 1, message.life.reason
            self._told(message.life)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._held.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "a conversation with the proxy broke", "exception": error}
            task.get_loop().call_exception_handler(context)


async def _hold(answer: Answer, conversation: socket.socket, lending: socket.socket) -> None:
    with lending:
        reader, writer = await asyncio.open_unix_connection(sock=conversation)
        await answer(reader, writer, lending)
