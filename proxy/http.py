"""HTTP between one client and its server, in mitmproxy's layers.

Law: what both versions of HTTP share. A refused request is answered at once and the rest of it drained, so that its
connection can be used again; a stream's sender is held up until its receiver has room.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http import DropStream, HttpLayer, HTTPMode, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)

from proxy import http1, http2

FAILURE = "dnsfw_failure"  # of a flow's metadata: the event whose message the client is going to be told
_ROOM = http2.WINDOW // 4  # octets that may still wait where new ones are let in


def install() -> None:
    """Have mitmproxy's HttpLayer use our parts. It finds them by name in its own module; there is no other way in."""
    parts = {
        "Http1Server": http1.Server,
        "Http1Client": http1.Client,
        "Http2Server": http2.Server,
        "Http2Client": http2.Client,
        "HttpStream": Stream,
    }
    for name, part in parts.items():
        setattr(http, name, part)


class Stream(HttpStream):
    """One request and its response."""

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """As its parent does. A refusal doesn't wait for a body, which is nobody's then."""
        if event.end_stream and event.request.headers.get("content-length", "0") != "0":
            yield from self._malformed("a body was announced that does not come")
            return
        yield from super().state_wait_for_request_headers(event)
        response = self.flow.response
        if response is None or event.end_stream or self.client_state != self.state_consume_request_body:
            return
        self.client_state, self.server_state = self.state_drain, self.state_done
        response.timestamp_start = response.timestamp_end = time.time()
        for part in (
            ResponseHeaders(self.stream_id, response, end_stream=False),
            ResponseData(self.stream_id, response.raw_content or b""),
            ResponseEndOfMessage(self.stream_id),
        ):
            yield SendHttp(part, self.context.client)

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> layer.CommandGenerator[None]:
        """As its parent does; what the client is told can be put into other words by whoever is told of it first."""
        self.flow.metadata[FAILURE] = event
        yield from super().handle_protocol_error(event)

    def _malformed(self, problem: str) -> layer.CommandGenerator[None]:
        yield http1.MalformedHook(problem)
        code = ErrorCode.REQUEST_VALIDATION_FAILED
        yield SendHttp(ResponseProtocolError(self.stream_id, problem, code), self.context.client)
        self.client_state = self.server_state = self.state_errored

    def state_drain(self, event: RequestData | RequestTrailers | RequestEndOfMessage) -> layer.CommandGenerator[None]:
        """Nothing is kept of it."""
        if isinstance(event, RequestEndOfMessage):
            self.client_state = self.state_done
            self.flow.live = False
            yield DropStream(self.stream_id)


class Http(HttpLayer):
    """All requests of one client's connection."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, HTTPMode.transparent)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from super()._handle_event(event)
        for end, stream_id in list(self._relieved()):
            yield from self.event_to_child(end, http2.CreditEvent(stream_id))

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        """As its parent does, which keeps what it knows of connections that were closed long ago."""
        used = {self.context.client, self.context.server, *(stream.context.server for stream in self.streams.values())}
        for connection in [*self.connections.keys() - used - self.waiting_for_establishment.keys()]:
            if connection.state is ConnectionState.CLOSED:
                del self.connections[connection]
        yield from super().make_stream(stream_id)

    def _relieved(self) -> Iterator[tuple[layer.Layer, int]]:
        """The ends, and their streams, that wait for credit and whose other side has room again."""
        client = self._end(self.context.client)
        for stream_id, stream in self.streams.items():
            server = self._end(stream.context.server)
            for end, other in ((client, server), (server, client)):
                if isinstance(end, http2.End) and end.in_debt(stream_id):
                    waiting = other.backlog(stream_id) if isinstance(other, http2.End) else 0
                    if waiting < _ROOM:
                        yield end, stream_id

    def _end(self, connection: Connection) -> layer.Layer | None:
        """The layer that speaks HTTP on a connection: the innermost of its stack."""
        found: layer.Layer | None = self.connections.get(connection)
        while (below := getattr(found, "child_layer", None)) is not None:
            found = below
        return found
