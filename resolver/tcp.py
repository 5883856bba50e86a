"""The TCP listener: many questions on a connection, answered in whatever order they are ready.

Law: a shell around `framing`. Source: RFC 7766 (pipelining, 6.2.1.1; idle connections, 6.2.3), RFC 9210 4.2.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from policy.values import Flow, Proto, address
from resolver.core import Pending, ResolverConfig
from resolver.framing import Deframer, FrameError, frame
from resolver.udp import Server
from resolver.wire import MAX_QUERY


@dataclass(slots=True)
class Connections:
    """The open connections, the one that was idle longest first. When there are too many, that one goes."""

    limit: int
    _open: OrderedDict[TcpConnection, None] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: TcpConnection) -> None:
        if len(self._open) >= self.limit:
            oldest, _ = self._open.popitem(last=False)
            oldest.abort()
        self._open[connection] = None

    def touch(self, connection: TcpConnection) -> None:
        if connection in self._open:
            self._open.move_to_end(connection)

    def discard(self, connection: TcpConnection) -> None:
        self._open.pop(connection, None)

    def abort_all(self) -> None:
        for connection in [*self._open]:
            connection.abort()


class TcpConnection(asyncio.Protocol):
    """One client's connection. It is read only while fewer than `tcp_pipeline` of its questions are under way and
    the client takes its replies, and it ends after `tcp_idle` seconds without a whole question or a reply."""

    def __init__(self, server: Server, config: ResolverConfig, connections: Connections) -> None:
        self._server, self._config, self._connections = server, config, connections
        self._deframer = Deframer(MAX_QUERY)
        self._transport: asyncio.Transport | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._active_at = 0.0
        self._under_way = 0
        self._client_reads = True
        self._ended = False  # the client has said all that it will say

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a TCP server makes stream transports")
        self._transport = transport
        (host, port), (own_host, own_port) = (transport.get_extra_info(end)[:2] for end in ("peername", "sockname"))
        self._flow = Flow(Proto.TCP, address(host.partition("%")[0]), port, address(own_host), own_port)
        self._connections.add(self)
        self._active_at = self._server.clock()
        self._watch(self._config.tcp_idle)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 how it ended makes no difference
        self._transport = None
        self._connections.discard(self)
        if self._idle is not None:
            self._idle.cancel()

    def data_received(self, data: bytes) -> None:
        self._deframer.feed(data)
        self._pump()

    def eof_received(self) -> bool:
        self._ended = True
        self._close_if_done()
        return True  # replies under way are still sent

    def pause_writing(self) -> None:
        self._client_reads = False

    def resume_writing(self) -> None:
        self._client_reads = True
        self._pump()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _pump(self) -> None:
        """Take up whole questions while there is room, and read on only if there still is some."""
        try:
            while self._has_room and (message := self._deframer.next()) is not None:
                self._take(message)
        except FrameError:
            self.abort()
        if self._transport is not None and not self._transport.is_closing():
            if self._has_room:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    @property
    def _has_room(self) -> bool:
        return self._client_reads and self._under_way < self._config.tcp_pipeline and self._transport is not None

    def _take(self, message: bytes) -> None:
        self._touch()
        result = self._server.take(message, self._flow, self._active_at)
        if isinstance(result, Pending):
            self._under_way += 1
            self._server.forward(result, self._answered)
        elif result is not None:
            self._write(result)

    def _answered(self, reply: bytes) -> None:
        self._under_way -= 1
        self._touch()
        self._write(reply)
        self._pump()
        self._close_if_done()

    def _write(self, reply: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            self._server.counters.unsent += 1
            return
        self._transport.write(frame(reply))

    def _touch(self) -> None:
        self._active_at = self._server.clock()
        self._connections.touch(self)

    def _close_if_done(self) -> None:
        if self._ended and not self._under_way and self._transport is not None:
            self._transport.close()

    def _watch(self, seconds: float) -> None:
        self._idle = asyncio.get_running_loop().call_later(seconds, self._look_at_idleness)

    def _look_at_idleness(self) -> None:
        remaining = self._active_at + self._config.tcp_idle - self._server.clock()
        if remaining > 0:
            self._watch(remaining)
        else:
            self.abort()
