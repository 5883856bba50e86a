"""A change of policy under live flows: a whole guard, real connections, and nobody else's help."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dnsfw.channel import JudgedAgain, Kept
from dnsfw.machine import cgroups
from dnsfw.machine.privilege import calling_user
from dnsfw.place import GuardOptions, Place
from dnsfw.supervisor.guard import Guard
from dnsfw.supervisor.starting import guarding
from firewall.conntrack import Conntrack
from firewall.marks import GENERATIONS
from policy.values import Flow
from resolver.upstreams import parse_upstream
from tests.firewall.street import (
    BOTH,
    PATIENCE,
    REFUSALS,
    STRANGER,
    Socket,
    Street,
    built,
    nothing_arrived,
    refusal,
)

pytestmark = pytest.mark.kernel

AWAITED = {signal.SIGIO, signal.SIGCHLD}
STAYS, GOES = 7000, 7001  # ports: of the second policy, of the first one alone


def policy(*ports: str | int) -> str:
    return "".join(f"{host}:{port}\n" for host in (STRANGER[4], f"[{STRANGER[6]}]") for port in ports)


@dataclass(frozen=True, slots=True)
class Guarded:
    street: Street
    guard: Guard
    file: Path

    def becomes(self, text: str) -> tuple[int, int]:
        """How many flows the new policy kept and cut."""
        said = self.outcome(text)
        assert isinstance(said, JudgedAgain), said
        return said.kept, said.cut

    def outcome(self, text: str) -> JudgedAgain | Kept:
        """What came of a reload, with the test as the supervisor."""
        self.file.write_text(text)
        self.guard.reload()
        self.tend_until(lambda: self.guard.reloading.came_of_it is not None)
        said = self.guard.reloading.came_of_it
        assert said is not None
        return said

    def tend_until(self, done: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < until, "nothing came of it"
            signal.sigtimedwait(AWAITED, min(1.0, self.guard.patience() or 1.0))
            self.guard.tend()

    def connected(self, version: int, port: int) -> tuple[Socket, Socket]:
        """Both ends of a connection outwards."""
        far = (STRANGER[version], port)
        with self.street.outside.listen(version, *far) as listening:
            client = self.street.inside.tcp(version)
            client.connect(far)
            server, _ = listening.accept()
        server.settimeout(PATIENCE)
        return client, server

    def says(self, version: int, port: int) -> None:
        """One datagram to an allowed port, until it has arrived."""
        far = (STRANGER[version], port)
        with self.street.outside.receive(version, *far) as sink, self.street.inside.udp(version) as sock:
            sock.sendto(b"x", far)
            assert sink.recv(10) == b"x"

    def tracked(self) -> list[Flow]:
        with self.street.inside.namespace.entered(), Conntrack() as conntrack:
            return [one.flow for some in conntrack.marked(0, 0) for one in some]


def children() -> list[int]:
    """Of this process, which is the supervisor."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@contextmanager
def no_signals_left() -> Iterator[None]:
    """A supervisor has the kernel signal what its children do and say."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    try:
        yield
    finally:
        while signal.sigtimedwait(AWAITED, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def under_guard(file: Path, text: str, *, audit: bool = False, journal: Path | None = None) -> Iterator[Guarded]:
    file.write_text(text)
    file.chmod(0o600)  # root's: the engine is not
    options = GuardOptions(file, audit, (parse_upstream("192.0.2.1"),), journal, refused=False, quiet=True)
    with built() as street, no_signals_left():
        place = Place(
            street.inside.namespace, cgroups.find_root(), calling_user(os.environ), os.environ, file.parent, 0.0
        )
        with guarding(options, place) as starting:
            yield Guarded(street, starting.enforce(), file)


FIRST = policy(STAYS, GOES, f"{STAYS}/udp", f"{GOES}/udp")


@pytest.fixture(scope="module")
def _guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with under_guard(tmp_path_factory.mktemp("renewal") / "policy", FIRST) as guarded:
        yield guarded


@pytest.fixture
def guarded(_guarded: Guarded) -> Guarded:
    """One for all, with its first policy again and nothing alive."""
    _guarded.becomes("")
    _guarded.becomes(FIRST)
    return _guarded


SECOND = policy(STAYS, f"{STAYS}/udp")


@BOTH
def test_an_idle_connection_that_is_denied_now_is_cut_at_both_ends_at_once(guarded: Guarded, version: int) -> None:
    client, server = guarded.connected(version, GOES)
    with client, server:
        started = time.monotonic()
        assert guarded.becomes(SECOND) == (0, 1)
        for end, expected in ((client, errno.ECONNABORTED), (server, errno.ECONNRESET)):
            with pytest.raises(OSError, match="onnection") as raised:
                end.recv(1)
            assert raised.value.errno == expected
        assert time.monotonic() - started < 1
        assert guarded.tracked() == []


@BOTH
def test_a_connection_that_is_still_allowed_goes_on_and_a_new_one_is_judged_anew(
    guarded: Guarded, version: int
) -> None:
    client, server = guarded.connected(version, STAYS)
    with client, server:
        for _ in range(3):
            assert guarded.becomes(SECOND) == (1, 0)
            client.sendall(b"x")
            assert server.recv(10) == b"x"
        with guarded.street.inside.tcp(version) as late:
            assert refusal(late, (STRANGER[version], GOES)) in REFUSALS


@BOTH
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "unconnected"])
def test_a_udp_flow_that_is_denied_now_sends_nothing_more(guarded: Guarded, version: int, connected: bool) -> None:
    far = (STRANGER[version], GOES)
    with guarded.street.outside.receive(version, *far) as sink, guarded.street.inside.udp(version) as client:
        if connected:
            client.connect(far)
        client.sendto(b"before", far) if not connected else client.send(b"before")
        assert sink.recv(10) == b"before"
        assert guarded.becomes(SECOND) == (0, 1)
        if connected:  # told at once
            with pytest.raises(ConnectionAbortedError):
                client.recv(1)
        else:
            client.sendto(b"after", far)
        guarded.says(version, STAYS)  # what was sent before it would be here by now
        assert nothing_arrived(sink)


def test_a_mistake_leaves_the_former_policy_in_force(guarded: Guarded) -> None:
    client, server = guarded.connected(4, GOES)
    with client, server:
        said = guarded.outcome("not a rule at all")
        assert isinstance(said, Kept)
        assert "1 mistake" in said.problem
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        again = guarded.connected(4, GOES)
        for end in again:
            end.close()


def test_after_more_changes_than_there_are_marks_for_nothing_old_is_valid(guarded: Guarded) -> None:
    client, server = guarded.connected(4, STAYS)
    with client, server:
        for _ in range(GENERATIONS):
            assert guarded.becomes(SECOND) == (1, 0)
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        assert guarded.becomes(policy(GOES)) == (0, 1)


def test_thousands_of_connections_are_cut_within_a_second(guarded: Guarded) -> None:
    with guarded.street.inside.namespace.entered():
        clients = [socket.socket() for _ in range(3000)]
    with guarded.street.outside.listen(4, STRANGER[4], GOES) as listening, ExitStack() as stack:
        listening.listen(len(clients))
        for client in clients:
            stack.enter_context(client).connect((STRANGER[4], GOES))
        started = time.monotonic()
        assert guarded.becomes(SECOND) == (0, len(clients))
        for client in clients:
            with pytest.raises(ConnectionAbortedError):
                client.recv(1)
        assert time.monotonic() - started < 1
        assert guarded.tracked() == []


def test_sockets_are_cut_by_connections_and_not_by_ports(guarded: Guarded) -> None:
    """A listener on the port of a connection that is cut stays, and an IPv6 socket may speak IPv4."""
    client, server = guarded.connected(4, GOES)
    mapped = guarded.street.inside.tcp(6)
    with server, mapped, guarded.street.outside.listen(4, STRANGER[4], GOES):
        mapped.connect((f"::ffff:{STRANGER[4]}", GOES))
        port = client.getsockname()[1]
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # its flow is still known for a while
        with guarded.street.inside.listen(4, guarded.street.inside.at[4], port) as listening:
            assert guarded.becomes(SECOND) == (0, 2)
            with pytest.raises(ConnectionAbortedError):
                mapped.recv(1)
            assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_a_dead_engine_opens_nothing_and_the_next_one_takes_what_was_asked_for(tmp_path: Path) -> None:
    with under_guard(tmp_path / "policy", policy(STAYS)) as guarded:
        client, server = guarded.connected(4, STAYS)
        with client, server:
            os.kill(children()[-1], signal.SIGKILL)
            with guarded.street.inside.tcp(4) as late:
                late.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    late.connect((STRANGER[4], STAYS))
            assert guarded.becomes(policy(STAYS, GOES)) == (1, 0)
            for end in guarded.connected(4, GOES):
                end.close()
            client.sendall(b"x")
            assert server.recv(1) == b"x"


def test_what_an_engine_died_of_is_not_offered_to_the_next(tmp_path: Path) -> None:
    with under_guard(tmp_path / "policy", policy(STAYS)) as guarded:
        before = children()
        engine = before[-1]
        os.kill(engine, signal.SIGSTOP)  # so that it takes nothing
        guarded.file.write_text(policy(STAYS, GOES))
        guarded.guard.reload()
        guarded.tend_until(lambda: children() == before)  # the reader is done
        os.kill(engine, signal.SIGKILL)
        guarded.tend_until(
            lambda: engine not in children() and guarded.guard.restarts.due is None
        )  # another is at work
        assert isinstance(guarded.guard.reloading.came_of_it, Kept)
        client, server = guarded.connected(4, STAYS)
        with client, server, guarded.street.inside.tcp(4) as late:
            assert refusal(late, (STRANGER[4], GOES)) in REFUSALS


def test_audit_cuts_nothing(tmp_path: Path) -> None:
    with under_guard(tmp_path / "policy", policy(GOES), audit=True) as guarded:
        client, server = guarded.connected(4, GOES)
        with client, server:
            assert guarded.becomes(SECOND) == (1, 0)
            client.sendall(b"x")
            assert server.recv(1) == b"x"
