"""containerd, played by a real HTTP/2 server on a Unix socket; and its messages, written by other code than ours reads.

Law: what it says and when is the test's; how it is said is containerd's.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from socketserver import BaseRequestHandler, ThreadingUnixStreamServer

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded

NOT_FOUND = "5"  # of gRPC's status codes


def wire(number: int, content: str | bytes) -> bytes:
    """A field of a message, with a length (protobuf.dev, "Encoding")."""
    raw = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _varint(number: int) -> bytes:
    octets = []
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


def container(name: str, image: str, labels: Mapping[str, str] = {}, annotations: Mapping[str, str] = {}) -> bytes:
    """A `Container` as containerd keeps it; a time and a runtime are of no interest, and there."""
    specification = json.dumps({"ociVersion": "1.0.2", "process": {"args": ["x"]}, "annotations": annotations})
    entries = b"".join(wire(2, wire(1, key) + wire(2, value)) for key, value in labels.items())
    runtime = wire(4, wire(1, "io.containerd.runc.v2"))
    spec = wire(5, wire(1, "types.containerd.io/opencontainers/runtime-spec/1/Spec") + wire(2, specification))
    made = wire(8, b"\x08" + _varint(1_700_000_000))
    return wire(1, name) + entries + wire(3, image) + runtime + spec + made


@dataclass
class FakeContainerd:
    """Of `containers`: namespace and id → a `Container`."""

    containers: dict[tuple[str, str], bytes] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)  # a method's last word → frames to answer instead
    stream: Queue[bytes | None] = field(default_factory=Queue)  # of creations; None ends it
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    followed: threading.Event = field(default_factory=threading.Event)

    def make(self, namespace: str, name: str, message: bytes) -> None:
        self.containers[namespace, name] = message
        created = wire(1, "containerd.events.ContainerCreate") + wire(2, wire(1, name) + wire(2, "not asked"))
        self.stream.put(wire(1, b"\x08\x01") + wire(2, namespace) + wire(3, "/containers/create") + wire(4, created))

    def answers(self, method: str, namespace: str, request: bytes) -> Iterator[bytes]:
        """Raises KeyError for what isn't there."""
        self.asked.append((method, namespace, request))
        if method == "Subscribe":
            yield from iter(self.stream.get, None)
        elif method == "Get":
            yield wire(1, self.containers[namespace, request[2:].decode()])
        elif method == "ListStream":
            yield from (wire(1, message) for (where, _), message in list(self.containers.items()) if where == namespace)
            self.followed.set()
        else:
            yield b"".join(wire(1, wire(1, each)) for each in sorted({where for where, _ in self.containers}))


class _Handler(BaseRequestHandler):
    engine: FakeContainerd

    def handle(self) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        with suppress(OSError):
            self._serve(connection)

    def _serve(self, connection: H2Connection) -> None:
        headers: dict[str, str] = {}
        body = b""
        while octets := self.request.recv(1 << 16):
            for happened in connection.receive_data(octets):
                if isinstance(happened, RequestReceived):
                    headers = {str(name): str(value) for name, value in happened.headers or ()}
                elif isinstance(happened, DataReceived):
                    body += happened.data or b""
                elif isinstance(happened, StreamEnded):
                    self._answer(connection, headers, body[5:])
            with suppress(BrokenPipeError):  # we have said our last word, and still listen
                self.request.sendall(connection.data_to_send())

    def _answer(self, connection: H2Connection, headers: dict[str, str], request: bytes) -> None:
        method = headers[":path"].rpartition("/")[2]
        connection.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        if (raw := self.engine.raw.get(method)) is not None:
            self.request.sendall(connection.data_to_send() + raw)
            self.request.shutdown(socket.SHUT_WR)
            return
        try:
            for message in self.engine.answers(method, headers.get("containerd-namespace", ""), request):
                connection.send_data(1, struct.pack("!BI", 0, len(message)) + message)
                self.request.sendall(connection.data_to_send())
            status = "0"
        except KeyError:
            status = NOT_FOUND
        connection.send_headers(1, [("grpc-status", status)], end_stream=True)


@contextmanager
def playing(path: Path) -> Iterator[FakeContainerd]:
    """One that listens there."""
    fake = FakeContainerd()
    handler = type("OneHandler", (_Handler,), {"engine": fake})
    with ThreadingUnixStreamServer(str(path), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield fake
        finally:
            fake.stream.put(None)
            server.shutdown()
            thread.join()
