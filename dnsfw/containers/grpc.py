"""One gRPC call over HTTP/2 (gRPC's own PROTOCOL-HTTP2.md): a request, then one answer or many.

Law: sans-IO. h2 speaks HTTP/2; what is here is what gRPC says in it: headers, the five octets before each message, the
status in the trailers. Bounded in size; how long it may take is the caller's affair.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

_STREAM: Final = 1
_PREFIX: Final = struct.Struct("!BI")  # compressed, length
_PLAIN: Final = 0
_OK: Final = b"0"


class CallError(Exception):
    """It was refused, broken off, or is none."""


class Call:
    """`sending` is to be sent, now and whenever something was received; `receive` takes what arrives. `over` once the
    answer is whole. `largest` bounds one message, in octets."""

    def __init__(self, method: str, request: bytes, metadata: Mapping[str, str], largest: int) -> None:
        self._largest = largest
        self._received = bytearray()
        self._status: bytes | None = None
        self.over = False
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._http.initiate_connection()
        headers = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "localhost"}
        headers |= {"te": "trailers", "content-type": "application/grpc", **metadata}
        self._http.send_headers(_STREAM, list(headers.items()))
        self._http.send_data(_STREAM, _PREFIX.pack(_PLAIN, len(request)) + request, end_stream=True)

    def sending(self) -> bytes:
        return self._http.data_to_send()

    def receive(self, octets: bytes) -> list[bytes]:
        """The messages that are whole by now. Raises CallError."""
        try:
            happened = self._http.receive_data(octets)
        except ProtocolError as error:
            raise CallError(f"no HTTP/2: {error}") from error
        for each in happened:
            self._take(each)
        return list(self._messages())

    def _take(self, happened: Event) -> None:
        match happened:
            case DataReceived():
                self._received += happened.data or b""
                self._http.acknowledge_received_data(happened.flow_controlled_length or 0, _STREAM)
            case ResponseReceived() | TrailersReceived():
                self._status = dict(happened.headers or ()).get(b"grpc-status", self._status)
            case StreamEnded():
                if self._status != _OK:
                    raise CallError(f"status {self._status!r}")
                self.over = True
            case StreamReset() | ConnectionTerminated():
                raise CallError("broken off")

    def _messages(self) -> Iterator[bytes]:
        while len(self._received) >= _PREFIX.size:
            compressed, length = _PREFIX.unpack_from(self._received)
            if compressed != _PLAIN or length > self._largest:
                raise CallError(f"a message that we can't take, of {length} octets")
            whole = _PREFIX.size + length
            if len(self._received) < whole:
                return
            yield bytes(self._received[_PREFIX.size : whole])
            del self._received[:whole]
