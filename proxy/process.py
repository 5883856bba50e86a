"""The proxy's whole life.

Law: composition. It is given everything it will ever have, already open: it resolves no name, reads no file but the
roots, writes none, and makes no socket but those to origins.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

from mitmproxy.options import Options
from mitmproxy.platform.linux import original_addr

from proxy import http1
from proxy.authority import Authority
from proxy.client import Client, Means
from proxy.connection import ClientConnection
from proxy.http import install
from proxy.questions import Questions
from proxy.sockets import BorrowingLoop
from proxy.tls import Tls

_MOST_CLIENTS = 2_048  # at a time


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a client may take: `head` from its connecting to its first request or tunnel, and for each head of a
    request from the first octet to the last; `idle` with nothing said by either side."""

    head: int = 30
    idle: int = 600


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """`listeners` are bound and listening on loopback (127.0.0.1 and ::1), made in the guarded network namespace.
    `gate` is connected to the engine (`proxy.messages`). `authority` makes the hosts' certificates; clients need its
    issuer's behind them. `roots` is a PEM file of the authorities that servers are verified against.
    By `lending` it gets its connections to servers (`proxy.sockets`); without it, it makes them itself."""

    listeners: tuple[socket.socket, ...]
    gate: socket.socket
    authority: Authority
    roots: Path
    patience: Patience = Patience()
    lending: socket.socket | None = None


def run(config: ProxyConfig, ready: Callable[[], None]) -> int:
    """Serve until SIGTERM or until the gate hangs up; the exit status: 0 for the one, 1 for the other.

    `ready` is called once clients are served. The process must be single-threaded and its own: signal handlers and the
    event loop are set up here. Privilege is the caller's business.
    """
    lending = config.lending
    loop = asyncio.SelectorEventLoop if lending is None else partial(BorrowingLoop, lending)
    return asyncio.run(_serve(config, ready), loop_factory=loop)


async def _serve(config: ProxyConfig, ready: Callable[[], None]) -> int:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    install()
    _, questions = await loop.create_unix_connection(Questions, sock=config.gate)
    door = Door(Means(_options(config.patience), questions, Tls(config.authority, config.roots)))
    servers = [await asyncio.start_server(door.enter, sock=listener) for listener in config.listeners]
    ready()
    ended = asyncio.create_task(told.wait())
    await asyncio.wait([ended, questions.over], return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.close()
    return 0 if told.is_set() else 1


class Door:
    """Lets clients in, as many as there is room for."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._numbers = itertools.count(1)
        self._inside = 0

    async def enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client. Whoever wasn't redirected here is not let in."""
        sock: socket.socket = writer.get_extra_info("socket")
        try:
            destination = original_addr(sock)
        except OSError:
            destination = sock.getsockname()[:2]
        if destination == sock.getsockname()[:2]:
            writer.transport.abort()
            return
        number = next(self._numbers)
        if self._inside >= _MOST_CLIENTS:
            turned_away = Client(number, destination, writer, self._means)
            turned_away.broken(f"more than {_MOST_CLIENTS} clients at a time")
            turned_away.close()
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio's habit, but not with every listener
        self._inside += 1
        try:
            await ClientConnection(number, destination, (reader, writer), self._means).serve()
        finally:
            self._inside -= 1


def _options(patience: Patience) -> Options:
    """What mitmproxy's layers look up. Bodies are never kept, sizes not limited, and after an upgrade octets pass."""
    options = Options(rawtcp=True, websocket=False, tcp_timeout=patience.idle)
    later: list[tuple[str, Any, Any]] = [
        (http1.HEAD_SECONDS, int, patience.head),
        # What its add-ons would add:
        ("validate_inbound_headers", bool, True),
        ("normalize_outbound_headers", bool, True),
        ("store_streamed_bodies", bool, False),
        ("connection_strategy", str, "lazy"),
        ("stream_large_bodies", Optional[str], None),  # noqa: UP045 - as it compares types
        ("body_size_limit", Optional[str], None),  # noqa: UP045
    ]
    for name, kind, value in later:
        if name not in options:
            options.add_option(name, kind, value, "")
    return options
