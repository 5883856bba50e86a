"""Container engines, played by a real HTTP server on a Unix socket; and a talk with those who ask them.

Law: what they say and when is the test's; how it is said is Docker's, Podman's and CRI-O's.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from queue import Queue
from socketserver import ThreadingUnixStreamServer
from typing import Any

from dnsfw.containers import inquirer
from dnsfw.containers.engine import Engine
from dnsfw.containers.known import Containers


@dataclass
class FakeEngine:
    """Speaks as Docker, Podman or CRI-O does, of `containers`: id → (image, name)."""

    containers: dict[str, tuple[str, str]] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)  # path → what to answer instead
    asked: list[str] = field(default_factory=list)
    stream: Queue[bytes | None] = field(default_factory=Queue)  # of /events; None ends it
    followed: threading.Event = field(default_factory=threading.Event)

    def make(self, container: str, image: str, name: str) -> None:
        self.containers[container] = image, name
        attributes = {"image": image, "name": name}
        self.stream.put(json.dumps({"Action": "create", "Actor": {"ID": container, "Attributes": attributes}}).encode())

    def answer(self, path: str) -> Any:
        if path == "/containers/json":
            return [{"Id": container, "Image": "sha256:x"} for container in self.containers]
        container = path.split("/")[2]
        if container not in self.containers:
            return None
        image, name = self.containers[container]
        if path.endswith("/json"):
            return {"Id": container, "Name": f"/{name}", "Image": "sha256:x", "Config": {"Image": image}}
        return {"name": name, "image": image, "pid": 1}


class _Handler(BaseHTTPRequestHandler):
    engine: FakeEngine

    def do_GET(self) -> None:
        self.engine.asked.append(self.path)
        if self.path.startswith("/events"):
            self._stream()
        elif self.path in self.engine.raw:
            self._send(200, self.engine.raw[self.path])
        elif (said := self.engine.answer(self.path)) is None:
            self._send(404, b"{}")
        else:
            self._send(200, json.dumps(said).encode())
            if self.path == "/containers/json":
                self.engine.followed.set()

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.end_headers()
        while (line := self.engine.stream.get()) is not None:
            self.wfile.write(line + b"\n")

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Quiet."""


@contextmanager
def playing(path: Path) -> Iterator[FakeEngine]:
    """One that listens there."""
    fake = FakeEngine()
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


@dataclass
class Talk:
    """A conversation with an inquirer that is a thread of ours."""

    containers: Containers
    ours: socket.socket

    def heard(self) -> None:
        """Wait for one more message, and take it in."""
        self.ours.setblocking(True)
        self.ours.recv(1, socket.MSG_PEEK)
        self.ours.setblocking(False)
        assert self.containers.hear()


@contextmanager
def talking(engines: Sequence[Engine]) -> Iterator[Talk]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    thread = threading.Thread(target=inquirer.serve, args=(theirs, engines))
    thread.start()
    with theirs, ours:
        yield Talk(Containers(ours, lambda: 0.0), ours)
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert not thread.is_alive()
