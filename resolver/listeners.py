"""Listening sockets: on the loopback addresses, and on all of a host that others are behind.

Law: makes sockets in the network namespace of its caller and nothing else; whoever serves them owns them.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Final, NamedTuple

type _Hosts = tuple[tuple[socket.AddressFamily, str], ...]

_LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_EVERYWHERE: Final = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104 - the packet filter guards it
# Have the kernel say which address a datagram reached.
_TELL: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
}
_BACKLOG: Final = 128
_TRIES: Final = 16  # of finding one port that is free in all four


class Listeners(NamedTuple):
    """Bound, non-blocking sockets, IPv4 and IPv6, all on one port; the TCP ones listen."""

    udp: tuple[socket.socket, ...]
    tcp: tuple[socket.socket, ...]

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return (*self.udp, *self.tcp)

    @property
    def port(self) -> int:
        return int(self.udp[0].getsockname()[1])


def make_listeners(port: int = 0) -> Listeners:
    """UDP and TCP sockets on 127.0.0.1 and ::1, in the current network namespace; 0 finds a port free in all four.

    Raises OSError, with none of the sockets left open.
    """
    return _bound(port, _LOOPBACK)


def make_wide_listeners(port: int) -> Listeners:
    """The same on every address, for `wide`: where a packet filter stands before them. Raises OSError."""
    listeners = _bound(port, _EVERYWHERE)
    for sock in listeners.udp:
        sock.setsockopt(*_TELL[socket.AddressFamily(sock.family)], 1)
    return listeners


def _bound(port: int, hosts: _Hosts) -> Listeners:
    for _ in range(_TRIES - 1):
        try:
            return _bind_all(port, hosts)
        except OSError:
            if port:
                raise
    return _bind_all(port, hosts)


def _bind_all(port: int, hosts: _Hosts) -> Listeners:
    with ExitStack() as unfinished:
        made: dict[int, list[socket.socket]] = {socket.SOCK_STREAM: [], socket.SOCK_DGRAM: []}
        for kind, sockets in made.items():
            for family, host in hosts:
                opened = unfinished.enter_context(socket.socket(family, kind | socket.SOCK_NONBLOCK))
                if kind == socket.SOCK_STREAM:
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                opened.bind((host, port))
                port = opened.getsockname()[1]
                sockets.append(opened)
        for opened in made[socket.SOCK_STREAM]:
            opened.listen(_BACKLOG)
        unfinished.pop_all()
        return Listeners(tuple(made[socket.SOCK_DGRAM]), tuple(made[socket.SOCK_STREAM]))
