"""PEEK and INSPECT in the kernel: what passes before the name is known, and who reaches the proxy."""

from __future__ import annotations

import errno
import fcntl
import socket
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, repeat

import pytest

from firewall.answers import Answer
from firewall.marks import Mark, connection_mark
from policy.values import Action, Flow
from tests.firewall.street import (
    ALLOWED,
    BOTH,
    KERNEL,
    LOOPBACK,
    PATIENCE,
    PLAN,
    REFUSALS,
    STRANGER,
    Guard,
    Socket,
    Street,
    guarding,
    in_force,
    nothing_arrived,
    refusal,
)

pytestmark = KERNEL

UNPROVEN = Answer(Action.ALLOW, unproven=True)
PROXY = 5301
PROXIED = replace(PLAN, proxy_port=PROXY)


def in_turn(*verdicts: Action | Answer) -> Callable[[Flow], Action | Answer]:
    """A judge that says these, and the last one for ever."""
    told = chain(verdicts, repeat(verdicts[-1]))
    return lambda _: next(told)


@contextmanager
def peeked(street: Street, version: int, *verdicts: Action | Answer) -> Iterator[tuple[Guard, Socket, Socket]]:
    """A guard that peeks first, and both ends of a connection that it let open."""
    far = (STRANGER[version], ALLOWED)
    with (
        street.outside.listen(version, *far) as listening,
        guarding(street, judge=in_turn(Action.PEEK, *verdicts)) as guard,
        street.inside.tcp(version) as client,
    ):
        client.connect(far)
        server, _ = listening.accept()
        server.settimeout(PATIENCE)
        with server:
            yield guard, client, server


@BOTH
def test_a_peeked_connection_costs_the_queue_two_packets(street: Street, version: int) -> None:
    with peeked(street, version, Action.ALLOW) as (guard, client, server):
        client.sendall(b"hello")
        assert server.recv(100) == b"hello"
        for _ in range(3):
            server.sendall(b"x" * 50_000)
            assert taken(client, 50_000)
            client.sendall(b"more")
            assert server.recv(100) == b"more"
        client.shutdown(socket.SHUT_WR)
        assert server.recv(100) == b""
        assert len(guard.listener.flows) == 2


def acknowledge(client: Socket, server: Socket) -> None:
    """All that the client said, and nothing else."""
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    until = time.monotonic() + PATIENCE
    while any(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4))):
        assert time.monotonic() < until
        time.sleep(0.001)


@BOTH
def test_words_that_may_not_arrive_are_listened_to_until_the_server_answers(street: Street, version: int) -> None:
    with peeked(street, version, UNPROVEN) as (guard, client, server):
        for queued in (2, 3, 4):
            client.sendall(b"words")
            assert server.recv(100) == b"words"
            acknowledge(client, server)
            assert len(guard.listener.flows) == queued
        server.sendall(b"answer")
        assert client.recv(100) == b"answer"
        for _ in range(3):
            client.sendall(b"words")
            assert server.recv(100) == b"words"
        client.shutdown(socket.SHUT_WR)
        assert server.recv(100) == b""
        assert len(guard.listener.flows) == 4


def test_another_generation_listens_on(street: Street) -> None:
    with peeked(street, 4, UNPROVEN) as (guard, client, server):
        client.sendall(b"words")
        assert server.recv(100) == b"words"
        guard.table.set_generation(1)
        server.sendall(b"answer")  # under the former one nothing is worth anything
        assert client.recv(100) == b"answer"
        client.sendall(b"words")
        assert server.recv(100) == b"words"
        server.sendall(b"answer")
        assert client.recv(100) == b"answer"
        before = len(guard.listener.flows)
        client.sendall(b"words")
        assert server.recv(100) == b"words"
        assert len(guard.listener.flows) == before


@BOTH
def test_a_server_that_speaks_first_is_not_held_up(street: Street, version: int) -> None:
    with peeked(street, version, Action.DENY) as (guard, client, server):
        for _ in range(20):
            server.sendall(b"x" * 50_000)
            assert taken(client, 50_000)
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        assert len(guard.listener.flows) == 1  # acknowledgements and the end carry nothing


@BOTH
@pytest.mark.parametrize("size", [1, 8, 100, 1400, 100_000])
def test_denied_first_data_resets_the_client_and_does_not_leave(street: Street, version: int, size: int) -> None:
    with peeked(street, version, Action.DENY) as (_, client, server):
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - while sending much, or behind it
            client.sendall(b"x" * size)
            client.recv(1)
        assert nothing_came(server)


def taken(sock: Socket, count: int) -> bool:
    """So many octets, or less and then the end."""
    while count > 0 and (part := sock.recv(count)):
        count -= len(part)
    return count == 0


def nothing_came(server: Socket) -> bool:
    server.settimeout(0)
    try:
        return server.recv(1) == b""
    except (BlockingIOError, ConnectionResetError):
        return True


def test_another_generation_judges_a_peeked_connection_again(street: Street) -> None:
    with peeked(street, 4, Action.DENY) as (guard, client, server):
        guard.table.set_generation(1)
        server.sendall(b"x")  # whose acknowledgement is judged
        with pytest.raises(OSError) as raised:  # noqa: PT012 - the reset may come with the octet or behind it
            client.recv(1)
            client.recv(1)
        assert raised.value.errno == errno.ECONNRESET
        assert len(guard.listener.flows) == 2


def test_a_mark_of_a_program_s_own_is_not_peeked(street: Street) -> None:
    """Not even by its user: the packet's field is wiped, and the connection's is not a program's to set."""
    far = (STRANGER[4], ALLOWED)
    with street.outside.listen(4, *far) as listening, guarding(street, judge=in_turn(Action.DENY)):
        for mark in (Mark.PEEK, Mark.INSPECT, connection_mark(Mark.PEEK, 0)):
            with street.inside.tcp(4) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark.to_bytes(4, sys.byteorder))
                assert refusal(client, far) in REFUSALS
        assert nothing_arrived(listening)


def test_audit_lets_first_data_go_that_nobody_judges(street: Street) -> None:
    far = (STRANGER[4], ALLOWED)
    plan = replace(PLAN, audit=True)
    with street.outside.listen(4, *far) as listening, in_force(street.inside, plan), street.inside.tcp(4) as client:
        client.connect(far)
        client.sendall(b"x")
        with listening.accept()[0] as server:
            assert server.recv(1) == b"x"


@BOTH
def test_an_inspected_connection_reaches_the_proxy_and_costs_one_packet(street: Street, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    with (
        street.outside.listen(version, *far) as outside,
        street.inside.listen(version, LOOPBACK[version], PROXY) as proxy,
        guarding(street, PROXIED, in_turn(Action.INSPECT, Action.DENY)) as guard,
        street.inside.tcp(version) as client,
    ):
        client.connect(far)
        assert client.getpeername()[:2] == far
        accepted, source = proxy.accept()
        assert source[:2] == client.getsockname()[:2]
        with accepted:
            client.sendall(b"question")
            assert accepted.recv(100) == b"question"
            accepted.sendall(b"x" * 50_000)
            assert taken(client, 50_000)
        assert nothing_arrived(outside)
        assert len(guard.listener.flows) == 1


@BOTH
@pytest.mark.parametrize("where", ["loopback", "own"])
def test_nobody_talks_to_the_proxy_s_port_directly(street: Street, version: int, where: str) -> None:
    to = LOOPBACK[version] if where == "loopback" else street.inside.at[version]
    with (
        street.inside.listen(version, to, PROXY) as proxy,
        guarding(street, PROXIED, in_turn(Action.ALLOW)) as guard,
        street.inside.tcp(version) as client,
    ):
        assert refusal(client, (to, PROXY)) in REFUSALS
        assert nothing_arrived(proxy)
        assert guard.table.counters()["direct"] == 1


@BOTH
def test_nobody_outside_talks_to_the_proxy_s_port(street: Street, version: int) -> None:
    to = (street.inside.at[version], PROXY)
    with (
        street.inside.listen(version, *to) as proxy,
        guarding(street, replace(PROXIED, inbound="open")) as guard,
        street.outside.tcp(version) as client,
    ):
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect(to)
        assert nothing_arrived(proxy)
        assert guard.table.counters()["direct"] >= 1


def test_a_connection_older_than_the_proxy_is_not_taken_for_an_inspected_one(street: Street) -> None:
    """It was never redirected: its packets would go to the server itself."""
    far = (STRANGER[4], ALLOWED)
    judge = in_turn(Action.ALLOW, Action.INSPECT)
    with (
        street.outside.listen(4, *far) as listening,
        guarding(street, PROXIED, judge) as guard,
        street.inside.tcp(4) as client,
    ):
        client.connect(far)
        server, _ = listening.accept()
        guard.table.set_generation(1)
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert nothing_came(server)
        assert guard.table.counters()["escaped"] == 1
        server.close()
