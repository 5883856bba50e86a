"""What mitmproxy's HTTP/1 lacks: trailers, and bounds on what a peer may make us hold.

Law: subclasses of its two ends of a connection, and nothing that knows of policy.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import h11
from mitmproxy import http
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    RequestEndOfMessage,
    RequestTrailers,
    ResponseEndOfMessage,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Connection, Http1Server, make_error_response

from proxy.heads import OVERRIDING

HEAD_OCTETS = 1 << 16
HEAD_SECONDS = "dnsfw_head_seconds"  # an option, as mitmproxy has them: from a head's first octet to its last
_AHEAD_OCTETS = 1 << 20  # of further requests, while one is answered (RFC 9112 section 9.3.2)
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2} ")  # RFC 9110 section 15.2; 101 is final for us
# Said at the end, these would change what was already judged or read (RFC 9110 section 6.5.1).
_NOT_AT_THE_END = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"te", b"trailer", b"expect"}
    | {b"authorization", b"cookie", b"set-cookie", b"content-encoding", b"content-type", b"content-range"}
    | OVERRIDING
)


@dataclass
class MalformedHook(commands.StartHook):  # type: ignore[no-untyped-call]  # mitmproxy registers them
    """A client sent what is no request, and was told so."""

    problem: str
    blocking = False


def trailers_of(fields: Iterable[tuple[bytes, bytes]]) -> http.Headers:
    """Those that may stand behind a body."""
    return http.Headers([(name, value) for name, value in fields if name.lower() not in _NOT_AT_THE_END])


class _Chunks:
    """A reader of a chunked body that keeps the trailers for itself."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.trailers: list[tuple[bytes, bytes]] = []

    def __call__(self, buffer: Any) -> Any:
        found = self._reader(buffer)
        if isinstance(found, h11.EndOfMessage) and found.headers:
            self.trailers = list(found.headers)
            return h11.EndOfMessage()
        return found

    def read_eof(self) -> Any:
        return self._reader.read_eof()


class _Bounded(Http1Connection):
    """Either end."""

    ReceiveTrailers: type[RequestTrailers | ResponseTrailers]
    _began: float | None = None
    _last: http.Headers | None = None

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As its parent does, with the trailers right before the end."""
        if not isinstance(self.body_reader, _Chunks):
            self.body_reader = _Chunks(self.body_reader)  # type: ignore[assignment]  # a reader by its shape
        reader: Any = self.body_reader
        for command in super().read_body(event):
            received = command.event if isinstance(command, ReceiveHttp) else None
            if isinstance(received, self.ReceiveEndOfMessage) and reader.trailers:
                yield ReceiveHttp(self.ReceiveTrailers(received.stream_id, http.Headers(reader.trailers)))
                reader.trailers = []  # what follows may be another message
            yield command

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """As its parent does; trailers wait for the end of a chunked body, and go nowhere without one."""
        if isinstance(event, RequestTrailers | ResponseTrailers):
            self._last = event.trailers
            return
        for command in super().send(event):
            if self._last is not None and isinstance(event, RequestEndOfMessage | ResponseEndOfMessage):
                if isinstance(command, commands.SendData) and command.data == b"0\r\n\r\n":
                    command.data = b"0\r\n%s\r\n" % bytes(self._last)
                self._last = None
            yield command

    def over(self) -> tuple[int, str] | None:
        """The status and the words for a head that isn't whole and won't be waited for."""
        if not self.buf:
            self._began = None
            return None
        self._began = self._began or time.monotonic()
        if len(self.buf) > HEAD_OCTETS:
            return 431, f"a head of more than {HEAD_OCTETS} octets"
        patience: int = getattr(self.context.options, HEAD_SECONDS)
        return (408, f"a head that took more than {patience} s") if time.monotonic() > self._began + patience else None


class Server(_Bounded, Http1Server):
    """The client's connection."""

    ReceiveTrailers = RequestTrailers

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """As its parent does, but not for ever."""
        yield from super().read_headers(event)
        if self.state == self.read_headers and (problem := self.over()):
            yield MalformedHook(problem[1])
            yield commands.SendData(self.conn, make_error_response(*problem))
            yield commands.CloseConnection(self.conn)
            self.state = self.done
        elif self.state == self.done and self.request is None:
            yield MalformedHook("not an HTTP request")

    def wait(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As its parent does, but not for everything."""
        if len(self.buf) > _AHEAD_OCTETS:
            yield commands.CloseConnection(self.conn)
            return
        yield from super().wait(event)


class Client(_Bounded, Http1Client):
    """The server's connection."""

    ReceiveTrailers = ResponseTrailers

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """As its parent does; interim responses are for us, not for the client."""
        while self.request is not None and _INTERIM.match(bytes(self.buf)[:16]):
            if self.buf.maybe_extract_lines() is None:
                break
        yield from super().read_headers(event)
        if self.state == self.read_headers and self.over():
            yield commands.CloseConnection(self.conn)
