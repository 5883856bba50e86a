"""The queue with the gate behind it, on real packets: both ends of a connection, and what waits in between."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from dnsfw.engine.gate import Gate
from dnsfw.engine.packets import Packets
from dnsfw.engine.storms import Storms
from dnsfw.journal.records import Entry
from firewall.overflow import Load
from firewall.ruleset import Plan
from policy import Action, Bindings, Owner, Reason, address
from policy.parse import parse
from tests.firewall.alley import BRIDGED, alley
from tests.firewall.hellos import extension, hello, names, said
from tests.firewall.street import (
    BOTH,
    KERNEL,
    PATIENCE,
    PLAN,
    QUEUE,
    STRANGER,
    Socket,
    Street,
    built,
    in_force,
    nothing_arrived,
)

pytestmark = KERNEL

OWNER = Owner(pid=7, start_time=70, uid=1000, exe="/usr/bin/git", argv=("git",), cgroup="/job")
POLICY = "a.example\na.example:2525\nmine.example exe=/usr/bin/curl\n"
GOOD, BAD = said("a.example"), said("b.example")
TCP_FASTOPEN_NO_COOKIE = 34  # <linux/tcp.h>


@pytest.fixture
def street() -> Iterator[Street]:
    with built() as made:
        yield made


@contextmanager
def guarding(street: Street, *, audit: bool = False, plan: Plan = PLAN) -> Iterator[list[Entry]]:
    """The inside, under a table whose queue the gate answers, in a loop and a thread of its own. What is recorded."""
    entries: list[Entry] = []
    bindings = Bindings()
    for version in (4, 6):
        for name in ("a.example", "mine.example"):
            bindings.bind(name, [(address(STRANGER[version]), 60.0)], time.monotonic())
    gate = Gate(parse(POLICY, "p"), bindings, lambda _: OWNER, entries.append, time.monotonic, audit)
    loop = asyncio.SelectorEventLoop()
    with street.inside.namespace.entered():
        packets = Packets(QUEUE)
    with packets, in_force(street.inside, replace(plan, audit=audit), removed=False):
        packets.serve(loop, gate, Storms(Load, lambda _: None, time.time, audit=gate.audit))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield entries
        finally:
            loop.call_soon_threadsafe(packets.rest)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


@contextmanager
def connected(street: Street, version: int, port: int = 443) -> Iterator[tuple[Socket, Socket]]:
    """A client inside and its server outside."""
    far = (STRANGER[version], port)
    with street.outside.listen(version, *far) as listening, street.inside.tcp(version) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect(far)
        server, _ = listening.accept()
        server.settimeout(PATIENCE)
        with server:
            yield client, server


def taken(server: Socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += server.recv(count - len(data))
    return data


@BOTH
def test_a_denied_name_ends_the_connection_at_both_ends(street: Street, version: int) -> None:
    with guarding(street) as entries, connected(street, version) as (client, server):
        client.sendall(BAD)
        for end in (client, server):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        assert [entry.decision.action for entry in entries] == [Action.PEEK, Action.DENY]


@BOTH
def test_an_allowed_name_opens_it_and_the_rest_is_the_kernel_s(street: Street, version: int) -> None:
    with guarding(street) as entries, connected(street, version) as (client, server):
        for words in (GOOD, b"x" * 1000, b"y" * 1000):
            client.sendall(words)
            assert taken(server, len(words)) == words
        assert [entry.decision.reason for entry in entries] == [Reason.ALLOW_RULE] * 2
        assert {entry.owner for entry in entries} == {OWNER}


@BOTH
def test_a_name_allowed_to_another_program_is_none(street: Street, version: int) -> None:
    with guarding(street) as entries, connected(street, version) as (client, _):
        client.sendall(said("mine.example"))
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert entries[-1].decision.reason is Reason.OWNER


@BOTH
@pytest.mark.parametrize("good", [True, False], ids=["allowed", "denied"])
def test_a_hello_that_takes_several_packets(street: Street, version: int, good: bool) -> None:
    """The kernel cuts it up before it is queued; nothing of a denied one arrives."""
    words = hello(names(b"a.example" if good else b"b.example") + extension(21, bytes(12_000)))
    with guarding(street) as entries, connected(street, version) as (client, server):
        client.sendall(words)
        if good:
            assert taken(server, len(words)) == words
        else:
            with pytest.raises(ConnectionResetError):
                server.recv(1)
        assert len(entries) == 2


@BOTH
def test_pieces_wait_for_their_rest_and_arrive_in_order(street: Street, version: int) -> None:
    with guarding(street), connected(street, version) as (client, server):
        client.sendall(GOOD[:100])
        server.settimeout(0.05)  # half of what is waited for
        with pytest.raises(TimeoutError):
            server.recv(1)
        client.sendall(GOOD[100:])
        server.settimeout(PATIENCE)
        assert taken(server, len(GOOD)) == GOOD


@BOTH
def test_pieces_go_on_when_their_rest_takes_long(street: Street, version: int) -> None:
    with guarding(street), connected(street, version) as (client, server):
        client.sendall(GOOD[:100])
        assert taken(server, 100) == GOOD[:100]
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        client.sendall(GOOD[100:200])
        client.sendall(GOOD[200:])  # which waits for an acknowledgement (RFC 896)
        assert taken(server, len(GOOD) - 100) == GOOD[100:]


@BOTH
@pytest.mark.parametrize("words", [GOOD, BAD], ids=["allowed", "denied"])
def test_data_in_a_syn_is_judged_behind_it(street: Street, version: int, words: bytes) -> None:
    far = (STRANGER[version], 443)
    with street.outside.listen(version, *far) as listening, guarding(street), street.inside.tcp(version) as client:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        street.outside.run("sysctl", "-qw", "net.ipv4.tcp_fastopen=0x603")  # a server that asks for no cookie
        client.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
        client.sendto(words, socket.MSG_FASTOPEN, far)
        if words is GOOD:
            with listening.accept()[0] as server:
                server.settimeout(PATIENCE)
                assert taken(server, len(GOOD)) == GOOD
        else:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert nothing_arrived(listening)  # the data came with what would have completed the handshake


@BOTH
def test_audit_lets_everything_go_and_records_what_it_would_have_denied(street: Street, version: int) -> None:
    with guarding(street, audit=True) as entries, connected(street, version) as (client, server):
        for words in (BAD, b"more"):
            client.sendall(words)
            assert taken(server, len(words)) == words
        assert [entry.decision.reason for entry in entries] == [Reason.ALLOW_RULE, Reason.NO_RULE]


@BOTH
@pytest.mark.parametrize("words", [GOOD, BAD], ids=["allowed", "denied"])
def test_a_container_behind_a_bridge_is_held_to_its_words_too(version: int, words: bytes) -> None:
    """Its address is translated behind the judgement; the reset to its server passes the same translation."""
    far = (STRANGER[version], 443)
    plan = replace(PLAN, inbound="open", bridged_port=BRIDGED)
    with (
        alley() as place,
        place.outside.listen(version, *far) as listening,
        guarding(place.street, plan=plan),
        place.container.tcp(version) as client,
    ):
        client.connect(far)
        server, _ = listening.accept()
        server.settimeout(PATIENCE)
        with server:
            client.sendall(words)
            if words is GOOD:
                assert taken(server, len(GOOD)) == GOOD
            else:
                for end in (client, server):
                    with pytest.raises(ConnectionResetError):
                        end.recv(1)
