"""A street of two network namespaces, and a guard on the one inside.

Law: real kernel objects only. The namespaces have no names, so the kernel takes them down with their last descriptor,
whatever ends the test.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pytest

from dnsfw.machine.namespaces import NetworkNamespace
from firewall.answers import Answer
from firewall.packet import PacketError
from firewall.queue import Queue
from firewall.ruleset import Plan
from firewall.table import Table
from policy.values import Action, Flow

# `End` has a method of that name.
type Socket = socket.socket
type Kind = socket.SocketKind

PATIENCE = 5.0  # seconds after which something that should happen at once has failed to

ALLOWED = 7000  # the one port that the tests' judge allows
RESOLVER = 5300
QUEUE = 7
STRANGER = {4: "192.0.2.53", 6: "2001:db8::53"}  # outside, behind the default route
_NEAR = {4: "10.77.0.1", 6: "fd77::1"}
_FAR = {4: "10.77.0.2", 6: "fd77::2"}


@dataclass(frozen=True, slots=True)
class End:
    """One end of the street: a namespace and its addresses by IP version."""

    namespace: NetworkNamespace
    at: dict[int, str]

    def socket(self, version: int, kind: Kind, proto: int = 0) -> Socket:
        """A socket in this namespace that gives up after PATIENCE."""
        with self.namespace.entered():
            made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind, proto)
        made.settimeout(PATIENCE)
        return made

    def socket_of(self, uid: int, version: int, kind: Kind) -> Socket:
        """A socket that another user made."""
        with self.namespace.entered():
            os.seteuid(uid)
            try:
                made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind)
            finally:
                os.seteuid(0)
        made.settimeout(PATIENCE)
        return made

    def tcp(self, version: int) -> Socket:
        return self.socket(version, socket.SOCK_STREAM)

    def udp(self, version: int) -> Socket:
        return self.socket(version, socket.SOCK_DGRAM)

    def listen(self, version: int, address: str, port: int) -> Socket:
        """A TCP listener; connections complete without being accepted."""
        made = self.tcp(version)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen()
        return made

    def receive(self, version: int, address: str, port: int) -> Socket:
        """A bound UDP socket."""
        made = self.udp(version)
        made.bind((address, port))
        return made

    def run(self, *command: str, stdin: str = "") -> str:
        """What a command prints that runs in this namespace."""
        with self.namespace.entered():
            return subprocess.run(command, input=stdin, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True, slots=True)
class Street:
    """`inside` is what tests guard; `outside` is the rest of the world."""

    inside: End
    outside: End


@contextmanager
def built() -> Iterator[Street]:
    """Two namespaces joined by a veth pair, with default routes outwards and no unfinished address."""
    with NetworkNamespace() as near, NetworkNamespace() as far:
        inside, outside = End(near, _NEAR), End(far, _FAR)
        with near.entered():
            _ip(f"link add veth0 type veth peer name veth0 netns {far.path}\n" + _commands(_NEAR))
            _ip(f"route add default via {_FAR[4]}\nroute add default via {_FAR[6]}\n")
        with far.entered():
            strangers = f"addr add {STRANGER[4]}/32 dev lo\naddr add {STRANGER[6]}/128 dev lo nodad\n"
            _ip(_commands(_FAR) + strangers)
        for end in (inside, outside):
            _wait_for_link(end)
        yield Street(inside, outside)


def _wait_for_link(end: End) -> None:
    """A link that is up sends nothing until the kernel has noticed its other end, some time later."""
    deadline = time.monotonic() + PATIENCE
    while "state UP" not in (shown := end.run("ip", "link", "show", "veth0")):
        assert time.monotonic() < deadline, shown
        time.sleep(0.01)


def _commands(at: dict[int, str]) -> str:
    return f"link set lo up\nlink set veth0 up\naddr add {at[4]}/24 dev veth0\naddr add {at[6]}/64 dev veth0 nodad\n"


def _ip(batch: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True, capture_output=True)


def only_the_allowed_port(flow: Flow) -> Action:
    return Action.ALLOW if flow.dport == ALLOWED else Action.DENY


class Listener:
    """A queue answered by a thread, and a record of what it saw."""

    def __init__(self, end: End, judge: Callable[[Flow], Action | Answer], number: int = QUEUE) -> None:
        self.flows: list[Flow] = []
        self.malformed: list[PacketError] = []
        self.faults: list[BaseException] = []
        self._judge = judge
        self._news = threading.Condition()
        with end.namespace.entered():
            self._queue = Queue(number, self._record, self._fault, self._malformed)
        self._stopped = os.eventfd(0)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Nobody answers the queue any more. May be called twice."""
        if self._thread.is_alive():
            os.eventfd_write(self._stopped, 1)
            self._thread.join()
            self._queue.close()
            os.close(self._stopped)

    def seen(self, count: int) -> list[Flow]:
        """The flows judged, once there are `count` of them and of unreadable packets together."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.flows) + len(self.malformed) >= count, PATIENCE), self.flows
            return list(self.flows)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._queue.fileno(), self._stopped], [], [])
            if self._stopped in ready:
                return
            self._queue.drain()

    def _record(self, flow: Flow, _packet: bytes) -> Answer:
        with self._news:
            self.flows.append(flow)
            self._news.notify_all()
        said = self._judge(flow)
        return said if isinstance(said, Answer) else Answer(said)

    def _malformed(self, error: PacketError, _data: bytes) -> None:
        with self._news:
            self.malformed.append(error)
            self._news.notify_all()

    def _fault(self, error: BaseException, _data: bytes) -> None:
        self.faults.append(error)


@contextmanager
def in_force(end: End, plan: Plan, *, queue_in_nft: bool | None = None, removed: bool = True) -> Iterator[Table]:
    """A table in `end`, while the test stays where it is."""
    table = Table(plan, queue_in_nft=queue_in_nft, removed=removed)
    with end.namespace.entered():
        table.__enter__()
    try:
        yield table
    finally:
        with end.namespace.entered():
            table.__exit__(None, None, None)


@dataclass(frozen=True, slots=True)
class Guard:
    listener: Listener
    table: Table


PLAN = Plan(RESOLVER, QUEUE)


@contextmanager
def guarding(
    street: Street, plan: Plan = PLAN, judge: Callable[[Flow], Action | Answer] = only_the_allowed_port
) -> Iterator[Guard]:
    """The inside of the street under a plan, its queue answered by `judge`. The table goes with the street."""
    with (
        Listener(street.inside, judge, plan.queue) as listener,
        in_force(street.inside, plan, removed=False) as table,
    ):
        yield Guard(listener, table)


# What the tests of this room have in common

KERNEL = pytest.mark.kernel("root", "netns", "nft", "nfqueue")
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
BOTH = pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
DENIED = ALLOWED + 1
# RST; ICMP admin-prohibited as either family's sockets report it; refused within the call.
REFUSALS = {errno.ECONNREFUSED, errno.EACCES, errno.EHOSTUNREACH, errno.EPERM}


def refusal(sock: Socket, far: tuple[str, int]) -> int:
    """The errno that a program gets for speaking to `far` and waiting for an answer. Fails the test on time-out."""
    with pytest.raises(OSError) as raised:  # noqa: PT012 - TCP is refused by connect, UDP by what follows
        sock.connect(far)
        sock.send(b"x")
        sock.recv(1)
    assert raised.value.errno, "nothing refused it"
    return raised.value.errno


def nothing_arrived(sink: Socket) -> bool:
    """For a verdict that has been given already: what it let through would be here."""
    sink.settimeout(0)
    try:
        sink.recv(1) if sink.type == socket.SOCK_DGRAM else sink.accept()
    except BlockingIOError:
        return True
    return False


def received(sink: Socket) -> bytes:
    """The first octets that arrive, on a connection where `sink` listens for those."""
    if sink.type == socket.SOCK_DGRAM:
        return sink.recv(100)
    connection, _ = sink.accept()
    connection.settimeout(PATIENCE)
    with connection:
        return connection.recv(100)


def sink_at(street: Street, version: int, kind: Kind, far: tuple[str, int]) -> Socket:
    if kind == socket.SOCK_DGRAM:
        return street.outside.receive(version, *far)
    return street.outside.listen(version, *far)
