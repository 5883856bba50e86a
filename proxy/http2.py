"""What mitmproxy's HTTP/2 lacks: back-pressure.

Law: subclasses of its two ends of a connection, and nothing that knows of policy. mitmproxy lets both peers send
without end and holds what the other side doesn't take. Here a stream has a window, and what came in through it is
credited only once the other side has room (`pacing`).
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import Event, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._base import HttpEvent
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Connection, Http2Server
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection

from proxy.http1 import MalformedHook

WINDOW = 1 << 21  # octets of a stream that may wait with us, in each direction


@dataclass
class CreditEvent(HttpEvent):
    """The other side has room for this stream."""


class _Paced(BufferedH2Connection):
    """`owed` are octets by stream, of those that still send, that were taken in and not yet credited."""

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.local_settings.initial_window_size = WINDOW
        self.local_settings.acknowledge()
        self.owed: Counter[int] = Counter()

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        """The connection's window is credited at once: no stream holds up another."""
        self.owed[stream_id] += acknowledged_size
        if acknowledged_size:
            self.increment_flow_control_window(acknowledged_size)

    def credit(self, stream_id: int) -> None:
        """Let the peer send on."""
        owed = self.owed.pop(stream_id, 0)
        if owed:
            with suppress(ProtocolError, KeyError):  # of a stream that has ended
                self.increment_flow_control_window(owed, stream_id)

    def backlog(self, stream_id: int) -> int:
        """Octets that wait for the peer's own window."""
        return sum(len(part.data) for part in self.stream_buffers.get(stream_id, ()))


class End(Http2Connection):
    """Either end."""

    h2_conn: _Paced

    def __init__(self, context: Context) -> None:
        super().__init__(context)  # type: ignore[call-arg]  # its other parents know which connection is theirs
        pushes = self.h2_conn.local_settings.enable_push
        self.h2_conn = _Paced(self.h2_conf)
        self.h2_conn.local_settings.enable_push = pushes
        self.h2_conn.local_settings.acknowledge()

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As its parents do; a credit comes from no peer."""
        if isinstance(event, CreditEvent):
            self.h2_conn.credit(self.inner(event.stream_id) or 0)
            if data := self.h2_conn.data_to_send():
                yield commands.SendData(self.conn, data)
        else:
            yield from super()._handle_event(event)

    def handle_h2_event(self, event: Event) -> layer.CommandGenerator[bool]:
        """As its parents do; a peer that has said all needs no credit."""
        done = yield from super().handle_h2_event(event)
        if isinstance(event, StreamEnded | StreamReset):
            self.h2_conn.owed.pop(event.stream_id, None)
        return done

    def inner(self, stream_id: int) -> int | None:
        """This end's number for what the client calls `stream_id`."""
        return stream_id

    def in_debt(self, stream_id: int) -> bool:
        """Does the peer wait for credit?"""
        return self.h2_conn.owed[self.inner(stream_id) or 0] >= WINDOW // 4

    def backlog(self, stream_id: int) -> int:
        """Octets that wait for the peer."""
        return self.h2_conn.backlog(self.inner(stream_id) or 0)


class Server(End, Http2Server):
    """The client's connection."""

    def protocol_error(self, message: str, error_code: int = ErrorCodes.PROTOCOL_ERROR) -> layer.CommandGenerator[None]:
        """As its parent does, and tell of it."""
        yield MalformedHook(message)
        yield from super().protocol_error(message, error_code)


class Client(End, Http2Client):
    """The server's connection."""

    def inner(self, stream_id: int) -> int | None:
        """Servers' streams have numbers of their own."""
        return self.our_stream_id.get(stream_id)
