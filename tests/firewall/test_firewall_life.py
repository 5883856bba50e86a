"""What was up before, what comes in, whose traffic is exempt, and how verdicts end: real connections."""

from __future__ import annotations

import errno
import itertools
import socket
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from firewall.ruleset import counters
from policy.values import Action, Flow, Proto, address
from tests.firewall.street import (
    ALLOWED,
    BOTH,
    DENIED,
    KERNEL,
    KINDS,
    LOOPBACK,
    PLAN,
    REFUSALS,
    RESOLVER,
    STRANGER,
    Kind,
    Street,
    guarding,
    nothing_arrived,
    received,
    refusal,
    sink_at,
)

pytestmark = KERNEL

SO_BINDTODEVICE = 25  # <asm-generic/socket.h>


@BOTH
def test_closed_lets_nothing_new_in(street: Street, version: int) -> None:
    here = (street.inside.at[version], 8080)
    with street.inside.listen(version, *here), guarding(street) as guard, street.outside.tcp(version) as visitor:
        visitor.settimeout(0.3)
        with pytest.raises(TimeoutError):
            visitor.connect(here)
        assert guard.table.counters()["inbound"] >= 1


@BOTH
@KINDS
def test_open_leaves_inbound_connections_and_their_replies_alone(street: Street, version: int, kind: Kind) -> None:
    here = (street.inside.at[version], 8080)
    plan = replace(PLAN, inbound="open")
    with guarding(street, plan) as guard, street.outside.socket(version, kind) as visitor:
        if kind == socket.SOCK_STREAM:
            with street.inside.listen(version, *here) as server:
                visitor.connect(here)
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"welcome")
                    assert visitor.recv(10) == b"welcome"
        else:
            with street.inside.receive(version, *here) as server:
                visitor.sendto(b"hello", here)
                _, back = server.recvfrom(10)
                server.sendto(b"welcome", back)
                assert visitor.recv(10) == b"welcome"
        assert guard.listener.flows == []


@BOTH
@KINDS
@pytest.mark.parametrize("inbound", ["closed", "open"])
def test_standing_flows_go_on(street: Street, version: int, kind: Kind, inbound: Literal["open", "closed"]) -> None:
    far = (STRANGER[version], DENIED)
    with sink_at(street, version, kind, far) as sink, street.inside.socket(version, kind) as client:
        client.connect(far)
        server = sink.accept()[0] if kind == socket.SOCK_STREAM else sink
        here = client.getsockname()
        proto = Proto.TCP if kind == socket.SOCK_STREAM else Proto.UDP
        standing = Flow(proto, address(here[0]), here[1], address(far[0]), far[1])
        plan = replace(PLAN, standing=(standing,), inbound=inbound)
        with server, guarding(street, plan) as guard:
            client.send(b"still here")
            assert server.recv(100) == b"still here"
            assert guard.listener.flows == []
            with street.inside.socket(version, kind) as another:
                assert refusal(another, far) in REFUSALS


def test_a_new_connection_with_a_standing_one_s_ports_is_judged(street: Street) -> None:
    far = (STRANGER[4], DENIED)
    with street.outside.listen(4, *far), street.inside.tcp(4) as client:
        client.bind((street.inside.at[4], 4321))
        standing = Flow(Proto.TCP, address(street.inside.at[4]), 4321, address(far[0]), far[1])
        with guarding(street, replace(PLAN, standing=(standing,), inbound="open")):
            assert refusal(client, far) in REFUSALS


@BOTH
def test_a_connection_from_before_that_is_not_standing_is_judged_in_its_middle(street: Street, version: int) -> None:
    far = (STRANGER[version], DENIED)
    with street.outside.listen(version, *far), street.inside.tcp(version) as client:
        client.connect(far)
        with guarding(street) as guard:
            client.send(b"x")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert len(guard.listener.flows) == 1


FORWARDED = """
table inet observer {
  counter sent { }
  chain out {
    type filter hook postrouting priority 0;
    ip daddr 198.51.100.0/24 counter name sent
  }
}
"""


@pytest.mark.parametrize("inbound", ["closed", "open"])
def test_nothing_is_forwarded(street: Street, inbound: Literal["open", "closed"]) -> None:
    with street.inside.namespace.entered():
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
    street.inside.run("nft", "-f", "-", stdin=FORWARDED)
    street.outside.run("ip", "route", "add", "198.51.100.0/24", "via", street.inside.at[4])
    with guarding(street, replace(PLAN, inbound=inbound)) as guard, street.outside.tcp(4) as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect(("198.51.100.1", ALLOWED))
        assert guard.table.counters()["forwarded"] >= 1
        assert counters(street.inside.run("nft", "list", "counters", "table", "inet", "observer")) == {"sent": 0}
        assert guard.listener.flows == []


def test_what_is_sent_elsewhere_by_the_loopback_device_is_judged(street: Street) -> None:
    with guarding(street) as guard, street.inside.udp(4) as client:
        client.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"lo")
        client.sendto(b"x", (STRANGER[4], DENIED))
        assert [flow.dport for flow in guard.listener.seen(1)] == [DENIED]


def test_icmp_errors_about_our_own_flows_come_back(street: Street) -> None:
    far = (STRANGER[4], ALLOWED)  # nobody is there: the far kernel says so
    with guarding(street), street.inside.udp(4) as client:
        assert refusal(client, far) == errno.ECONNREFUSED


@BOTH
@KINDS
def test_the_exempt_user_is_neither_judged_nor_redirected(street: Street, version: int, kind: Kind) -> None:
    plan = replace(PLAN, inbound="open", exempt_uids=(61_853,))
    ours = street.inside.socket_of(61_853, version, kind)
    far = (STRANGER[version], 53)
    with sink_at(street, version, kind, far) as sink, guarding(street, plan) as guard, ours:
        ours.connect(far)
        ours.send(b"x")
        assert received(sink) == b"x"
        with street.inside.socket(version, kind) as other:
            assert refusal(other, (STRANGER[version], DENIED)) in REFUSALS
        assert [flow.dport for flow in guard.listener.flows] == [DENIED]


@BOTH
def test_the_exempt_user_s_last_words_are_not_judged(street: Street, version: int) -> None:
    """A connection in TIME-WAIT has no socket any more that a uid could be read from."""
    plan = replace(PLAN, inbound="open", exempt_uids=(61_853,))
    far = (STRANGER[version], DENIED)
    ours = street.inside.socket_of(61_853, version, socket.SOCK_STREAM)
    with street.outside.listen(version, *far) as listening, guarding(street, plan) as guard, ours:
        ours.connect(far)
        server, _ = listening.accept()
        with server:
            ours.shutdown(socket.SHUT_WR)
            assert server.recv(1) == b""
            ours.close()
        with street.inside.tcp(version) as other:  # sent later, judged later
            assert refusal(other, far) in REFUSALS
        assert len(guard.listener.flows) == 1
        assert guard.table.counters()["refused"] == 1


@BOTH
def test_a_new_generation_judges_a_live_connection_once_more(street: Street, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    verdicts = itertools.chain([Action.ALLOW, Action.ALLOW], itertools.repeat(Action.DENY))
    with (
        street.outside.listen(version, *far) as listening,
        guarding(street, judge=lambda _: next(verdicts)) as guard,
        street.inside.tcp(version) as client,
    ):
        client.connect(far)
        server, _ = listening.accept()
        with server:
            guard.table.set_generation(1)
            for part in (b"a", b"b", b"c"):
                client.send(part)
                assert server.recv(1) == part
            assert len(guard.listener.flows) == 2
            guard.table.set_generation(2)
            client.send(b"d")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            server.settimeout(0)
            with pytest.raises(BlockingIOError):
                server.recv(1)


def test_a_new_generation_ends_leases(street: Street) -> None:
    far = (STRANGER[4], ALLOWED)
    with street.outside.receive(4, *far) as sink, guarding(street) as guard, street.inside.udp(4) as client:
        for generation in range(1, 4):
            for _ in range(2):
                client.sendto(b"x", far)
                assert sink.recv(10) == b"x"
            assert len(guard.listener.flows) == generation
            guard.table.set_generation(generation)


@BOTH
def test_without_a_listener_nothing_new_leaves_and_what_was_allowed_goes_on(street: Street, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    with (
        street.outside.listen(version, *far) as listening,
        guarding(street) as guard,
        street.inside.tcp(version) as client,
    ):
        client.connect(far)
        server, _ = listening.accept()
        guard.listener.stop()
        with server, street.inside.tcp(version) as late:
            late.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.connect(far)
            client.send(b"still here")
            assert server.recv(100) == b"still here"
        assert nothing_arrived(listening)


@BOTH
@KINDS
@pytest.mark.parametrize("listener", ["there", "gone"])
def test_audit_refuses_nothing(street: Street, version: int, kind: Kind, listener: str) -> None:
    far = (STRANGER[version], DENIED)
    plan = replace(PLAN, audit=True)
    with (
        sink_at(street, version, kind, far) as sink,
        guarding(street, plan) as guard,
        street.inside.socket(version, kind) as client,
    ):
        if listener == "gone":
            guard.listener.stop()
        client.connect(far)
        for part in (b"1", b"2"):
            client.send(part)
        assert received(sink)
        assert bool(guard.listener.flows) is (listener == "there")
        assert guard.table.counters()["refused"] == 0


@BOTH
def test_audit_lets_a_program_talk_to_the_resolver_s_port_too(street: Street, version: int) -> None:
    far = (LOOPBACK[version], RESOLVER)
    audit = replace(PLAN, audit=True)
    with street.inside.listen(version, *far), guarding(street, audit), street.inside.tcp(version) as client:
        client.connect(far)
