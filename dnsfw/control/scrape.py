"""Metrics over HTTP on a loopback port, where that was asked for.

Law: one thread, one client at a time, each for some seconds at most: local programs can reach the port, and all that
they can hold up is each other's scrapes. What is told is read on the engine's own loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from dnsfw.control.messages import StatusReport
from dnsfw.control.metrics import registry
from dnsfw.errors import SetupError

_LOOPBACK: Final = "127.0.0.1"
_PATIENCE: Final = 1.0  # seconds, for a client and for the loop


class _Request(WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, *_: object) -> None:
        """Whoever asks is no news."""


class _Server(WSGIServer):
    def handle_error(self, *_: object) -> None:
        """A client that left is no news either."""


class Scrape:
    """Bound at construction, so that a taken port is told at the start (SetupError). A context manager."""

    def __init__(self, port: int, status: Callable[[], StatusReport]) -> None:
        self._status = status
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            self._server = _Server((_LOOPBACK, port), _Request)
        except OSError as error:
            raise SetupError(
                f"Metrics can't be served on {_LOOPBACK}:{port}: {error.strerror}.", "Name another: --metrics-port"
            ) from error
        self.port: int = self._server.server_port
        self._server.set_app(make_wsgi_app(registry(self._read), disable_compression=True))
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer from now on, with what `status` says on that loop."""
        self._loop = loop
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def _read(self) -> StatusReport:
        if self._loop is None:
            raise RuntimeError("nobody is answered before the start")
        return asyncio.run_coroutine_threadsafe(self._on_loop(), self._loop).result(_PATIENCE)

    async def _on_loop(self) -> StatusReport:
        return self._status()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
