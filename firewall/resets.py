"""Resets for servers whose clients were refused behind an open connection.

Law: sends and never receives. The sockets belong to the network namespace, and to the user, that were current when they
were made; made as root they are no exempt user's, so that what they send is judged like all else.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Final, Self

from firewall.packet import parse_header

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


class Resets:
    """A context manager. Raises OSError where we lack CAP_NET_RAW."""

    def __init__(self) -> None:
        with ExitStack() as stack:
            # IPPROTO_RAW: whole packets out, nothing in (raw(7)).
            self._sockets = {
                version: stack.enter_context(socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW))
                for version, family in _FAMILIES.items()
            }
            self._stack = stack.pop_all()

    def send(self, packet: bytes) -> None:
        """Best effort: a server that hears nothing has a time-out."""
        header = parse_header(packet)
        version = packet[0] >> 4
        with suppress(OSError):
            self._sockets[version].sendto(packet, (socket.inet_ntop(_FAMILIES[version], header.dst), 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
