"""The proxy's end of the conversation with the gate.

Law: answers come in the order of the questions, so that is all that pairs them. When the gate is gone every question,
asked or still to be asked, raises GateGoneError: nothing passes unasked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import overload

from proxy import messages
from proxy.heads import Line
from proxy.messages import (
    Asked,
    FromGate,
    FromProxy,
    Greeted,
    Judged,
    MessageError,
    Question,
    Reported,
    Steered,
    Trouble,
    Unreadable,
)


class GateGoneError(Exception):
    """Nobody is left to ask, or to ask for."""


class Questions(asyncio.Protocol):
    """For loop.create_unix_connection(). `over` is done when the conversation is."""

    def __init__(self) -> None:
        self.over = asyncio.get_running_loop().create_future()
        self._frames = messages.Frames()
        self._waiting: deque[asyncio.Future[FromGate]] = deque()
        self._transport: asyncio.WriteTransport | None = None

    def tell(self, message: FromProxy) -> None:
        """What needs no answer. Lost where the gate is gone."""
        if self._transport is not None:
            self._transport.write(messages.encode(message))

    @overload
    async def ask(self, question: Greeted) -> Steered: ...
    @overload
    async def ask(self, question: Asked | Unreadable) -> Judged: ...
    async def ask(self, question: Question) -> FromGate:
        """The gate's answer. Raises GateGoneError, and MessageError for what is too long to be asked."""
        if self._transport is None:
            raise GateGoneError
        self._transport.write(messages.encode(question))
        answer: asyncio.Future[FromGate] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)  # stays there if whoever asked goes away: an answer will come
        return await answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Speak first."""
        if not isinstance(transport, asyncio.WriteTransport):
            raise TypeError(f"not a stream: {transport}")
        self._transport = transport
        self.tell(messages.Hello(messages.VERSION))

    def data_received(self, data: bytes) -> None:
        """Hand out what is whole."""
        try:
            for body in self._frames.take(data):
                self._hand_out(messages.read_from_gate(body))
        except MessageError as error:
            self._end(error)

    def _hand_out(self, answer: FromGate) -> None:
        if not self._waiting:
            raise MessageError(f"an answer to no question: {answer}")
        future = self._waiting.popleft()
        if not future.done():
            future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """The engine is gone."""
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        for future in self._waiting:
            if not future.done():
                future.set_exception(GateGoneError())
        self._waiting.clear()
        if not self.over.done():
            self.over.set_result(error)


class About:
    """What is asked and told about one connection, from its opening to its closing. Behind that nothing is said any
    more: what mitmproxy still does for it comes too late."""

    def __init__(self, questions: Questions, opened: messages.Opened) -> None:
        self._questions = questions
        self._number = opened.connection
        self._open = True
        questions.tell(opened)

    def close(self) -> None:
        """It is gone. May be called twice."""
        if self._open:
            self._open = False
            self._questions.tell(messages.Closed(self._number))

    def report(self, trouble: Trouble, detail: str) -> None:
        """For the journal."""
        if self._open:
            self._questions.tell(Reported(self._number, trouble, detail))

    async def greeted(self, hello: bytes) -> Steered:
        """What is to become of it, with this ClientHello? Raises GateGoneError."""
        return await self._gate().ask(Greeted(self._number, hello))

    async def asked(self, scheme: str, line: Line) -> Judged:
        """May this request pass? Raises GateGoneError."""
        return await self._gate().ask(Asked(self._number, scheme, line.host, line.method, line.path))

    async def unreadable(self, problem: str) -> Judged:
        """Nor may this one, but in audit. Raises GateGoneError."""
        return await self._gate().ask(Unreadable(self._number, problem))

    def _gate(self) -> Questions:
        if not self._open:
            raise GateGoneError
        return self._questions
