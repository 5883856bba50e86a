"""Connections to the upstreams, kept while they are of use: many questions on one, answers in any order.

Law: a shell around `framing`. An answer is brought to the question whose id it carries, and whether it is one is not
asked here. Over TLS the server's name is verified before anything is said. Source: RFC 7766 6.2, RFC 7858 3.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from resolver.framing import Deframer, frame
from resolver.upstreams import Transport, Upstream

_MESSAGE: Final = 0xFFFF
_PIPELINE: Final = 100  # questions under way on one connection; more are put on another
_HANDSHAKE: Final = 5.0  # seconds; whoever asks gives up before

type Fault = Callable[[BaseException], None]


class Listener(Protocol):
    """Who waits for an answer over a stream."""

    def heard(self, data: bytes) -> None: ...
    def hung_up(self) -> None: ...


class _Line(NamedTuple):
    """What connections are kept by."""

    upstream: Upstream
    transport: Transport


@dataclass(eq=False, slots=True)
class Asking:
    """One question on its way. `cancel` it if the answer is not waited for any longer."""

    payload: bytes
    listener: Listener
    stream: Stream | None = None

    def cancel(self) -> None:
        """The server was asked and said nothing: what else it is asked goes over another connection."""
        if self.stream is not None:
            self.stream.retire(self)


class Streams:
    """All connections to the upstreams; each ends `idle` seconds after its last answer. `context` is for those over
    TLS. What breaks in making one goes to `fault`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, idle: float, context: ssl.SSLContext | None, fault: Fault
    ) -> None:
        self.loop, self.idle, self.context, self.fault = loop, idle, context, fault
        self._open: dict[_Line, list[Stream]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def ask(self, upstream: Upstream, transport: Transport, payload: bytes, listener: Listener) -> Asking:
        """Send one message, over a connection that is up if there is one. The listener hears once at most."""
        asking = Asking(payload, listener)
        self.put(_Line(upstream, transport), asking)
        return asking

    def put(self, line: _Line, asking: Asking) -> None:
        streams = self._open.setdefault(line, [])
        stream = next((each for each in streams if each.has_room(asking)), None)
        if stream is None:
            stream = Stream(self, line)
            streams.append(stream)
        stream.ask(asking)

    def gone(self, line: _Line, stream: Stream) -> None:
        self._open[line].remove(stream)
        if not self._open[line]:
            del self._open[line]

    def close(self) -> None:
        for stream in [each for streams in self._open.values() for each in streams]:
            stream.end()


class Stream(asyncio.Protocol):
    """One connection, from the wish for it to its end."""

    def __init__(self, streams: Streams, line: _Line) -> None:
        self._streams, self._line = streams, line
        self._deframer = Deframer(_MESSAGE)
        self._waiting: dict[bytes, Asking] = {}  # by id
        self._transport: asyncio.Transport | None = None
        self._answered = False
        self._retired = self._ended = False
        self._idle: asyncio.TimerHandle | None = None
        self._connecting = streams.loop.create_task(self._connect())

    def has_room(self, asking: Asking) -> bool:
        """Two questions of one id can't be told apart."""
        return not self._retired and len(self._waiting) < _PIPELINE and asking.payload[:2] not in self._waiting

    def ask(self, asking: Asking) -> None:
        asking.stream = self
        self._waiting[asking.payload[:2]] = asking
        self._stay()
        if self._transport is not None:
            self._transport.write(frame(asking.payload))

    def retire(self, asking: Asking) -> None:
        """Forget one question and take no other."""
        self._retired = True
        if self._waiting.get(asking.payload[:2]) is asking:
            del self._waiting[asking.payload[:2]]
        asking.stream = None
        if not self._waiting:
            self.end()

    def end(self) -> None:
        self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()
        else:
            self._over()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a TCP connection has a stream transport")
        self._transport = transport
        transport.write(b"".join(frame(asking.payload) for asking in self._waiting.values()))

    def data_received(self, data: bytes) -> None:
        self._deframer.feed(data)
        while (message := self._deframer.next()) is not None:
            asking = self._waiting.pop(message[:2], None)
            if asking is not None:
                self._answered, asking.stream = True, None
                asking.listener.heard(message)
        if not self._waiting:
            self._rest()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 how it ended makes no difference
        self._transport = None
        self._over()

    async def _connect(self) -> None:
        upstream, transport = self._line
        tls = transport is Transport.TLS
        name = upstream.certified or str(upstream.address)
        try:
            await self._streams.loop.create_connection(
                lambda: self,
                *upstream.place,
                ssl=(self._streams.context or True) if tls else None,
                server_hostname=name if tls else None,
                ssl_handshake_timeout=_HANDSHAKE if tls else None,
            )
        except OSError:  # no way to it, or it is not who it should be
            self._over()
        except Exception as error:  # noqa: BLE001 whatever breaks here, those who wait must be told
            self._streams.fault(error)
            self._over()

    def _over(self) -> None:
        """Tell those who wait; or ask again for them, where the server only had enough of this connection
        (RFC 7766 6.2.4): one that has answered nothing is not tried twice."""
        if self._ended:
            return
        self._retired = self._ended = True
        self._stay()
        self._streams.gone(self._line, self)
        left, self._waiting = self._waiting, {}
        for asking in left.values():
            asking.stream = None
            if self._answered:
                self._streams.put(self._line, asking)
            else:
                asking.listener.hung_up()

    def _rest(self) -> None:
        """Nothing is under way."""
        if self._retired:
            self.end()
        elif self._idle is None:
            self._idle = self._streams.loop.call_later(self._streams.idle, self.end)

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
