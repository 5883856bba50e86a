"""The proxy's whole life.

Law: composition. It is given everything it will ever have, already open: it resolves no name, reads no file but the
roots, writes none, and makes no socket but those to origins.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from proxy.authority import Authority


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """`listeners` are bound and listening on loopback (127.0.0.1 and ::1), made in the guarded network namespace.
    `gate` is connected to the engine (`proxy.messages`). `authority` makes the hosts' certificates; clients need its
    issuer's behind them. `roots` is a PEM file of the authorities that servers are verified against."""

    listeners: tuple[socket.socket, ...]
    gate: socket.socket
    authority: Authority
    roots: Path


def run(config: ProxyConfig, ready: Callable[[], None]) -> int:
    """Serve until SIGTERM or until the gate hangs up; the exit status: 0 for the one, 1 for the other.

    `ready` is called once clients are served. The process must be single-threaded and its own: signal handlers and the
    event loop are set up here. Privilege is the caller's business.
    """
    raise NotImplementedError
