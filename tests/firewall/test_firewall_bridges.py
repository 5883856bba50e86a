"""Traffic of containers, through a guarded host: real bridges, NATed as container engines do it."""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from firewall.conntrack import Conntrack
from firewall.ruleset import Plan
from policy.values import Action, Flow, Proto, address
from tests.firewall.alley import BRIDGED, PUBLISHED, SERVED, Alley, Kind, alley, behind
from tests.firewall.street import (
    ALLOWED,
    BOTH,
    DENIED,
    KERNEL,
    KINDS,
    PATIENCE,
    QUEUE,
    REFUSALS,
    RESOLVER,
    STRANGER,
    Guard,
    guarding,
    in_force,
    nothing_arrived,
    only_the_allowed_port,
    received,
    refusal,
    sink_at,
)

pytestmark = KERNEL

UP = Plan(RESOLVER, QUEUE, inbound="open", bridged_port=BRIDGED)
IPV6_FREEBIND = 78  # <linux/in6.h>
IP_TRANSPARENT = 19  # <linux/in.h>


@pytest.fixture(params=["bridge", "ptp"])
def place(request: pytest.FixtureRequest) -> Iterator[Alley]:
    """Either way of being behind a host."""
    with alley(request.param) as place:
        yield place


@pytest.fixture
def bridged() -> Iterator[Alley]:
    with alley() as place:
        yield place


@contextmanager
def guarded(place: Alley, plan: Plan = UP, judge: Callable[[Flow], Action] = only_the_allowed_port) -> Iterator[Guard]:
    with guarding(place.street, plan, judge) as guard:
        yield guard


@BOTH
def test_an_allowed_connection_is_judged_once_before_its_address_is_translated(place: Alley, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    with place.outside.listen(version, *far) as listening, guarded(place) as guard:
        with place.container.tcp(version) as client:
            client.connect(far)
            server, peer = listening.accept()
            with server:
                client.sendall(b"x" * 100_000)
                client.shutdown(socket.SHUT_WR)
                assert sum(len(part) for part in iter(lambda: server.recv(65536), b"")) == 100_000
                server.sendall(b"y")
                assert client.recv(1) == b"y"
            here = client.getsockname()
        assert peer[0] == place.host.at[version]  # masqueraded, as before
        assert guard.listener.flows == [Flow(Proto.TCP, address(here[0]), here[1], address(far[0]), far[1])]


@BOTH
@KINDS
def test_what_is_denied_is_refused_at_once(bridged: Alley, version: int, kind: socket.SocketKind) -> None:
    far = (STRANGER[version], DENIED)
    with sink_at(bridged.street, version, kind, far) as sink, guarded(bridged) as guard:
        with bridged.container.socket(version, kind) as client:
            started = time.monotonic()
            assert refusal(client, far) in REFUSALS
            assert time.monotonic() - started < 0.5
        assert nothing_arrived(sink)
        assert guard.table.counters()["refused"] == 1


@BOTH
def test_a_udp_verdict_is_a_lease(bridged: Alley, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    with bridged.outside.receive(version, *far) as sink, guarded(bridged) as guard:
        with bridged.container.udp(version) as client:
            client.connect(far)
            for _ in range(3):
                client.send(b"x")
                data, back = sink.recvfrom(10)
                sink.sendto(data, back)
                assert client.recv(10) == b"x"
        assert len(guard.listener.flows) == 1


@BOTH
@KINDS
def test_its_questions_reach_the_resolver_wherever_they_are_sent(
    bridged: Alley, version: int, kind: socket.SocketKind
) -> None:
    far = (STRANGER[version], 53)
    everywhere = "0.0.0.0" if version == 4 else "::"
    with bridged.host.socket(version, kind) as resolver, guarded(bridged) as guard:
        resolver.bind((everywhere, BRIDGED))
        if kind == socket.SOCK_STREAM:
            resolver.listen()
        with bridged.container.socket(version, kind) as client:
            client.connect(far)
            client.send(b"question")
            assert received(resolver) == b"question"
        assert guard.listener.flows == []


@BOTH
def test_the_answer_comes_from_whom_was_asked(bridged: Alley, version: int) -> None:
    """TCP says so by working at all."""
    everywhere = "0.0.0.0" if version == 4 else "::"
    with (
        bridged.host.listen(version, everywhere, BRIDGED) as resolver,
        guarded(bridged),
        bridged.container.tcp(version) as client,
    ):
        client.connect((STRANGER[version], 53))
        served, _ = resolver.accept()
        with served:
            served.sendall(b"answer")
            assert client.recv(10) == b"answer"


@BOTH
@KINDS
def test_nobody_talks_to_the_resolver_s_port_directly(bridged: Alley, version: int, kind: socket.SocketKind) -> None:
    everywhere = "0.0.0.0" if version == 4 else "::"
    with bridged.host.socket(version, kind) as resolver, guarded(bridged) as guard:
        resolver.bind((everywhere, BRIDGED))
        if kind == socket.SOCK_STREAM:
            resolver.listen()
        for end in (bridged.container, bridged.outside):
            with end.socket(version, kind) as client:
                client.settimeout(0.2)
                with pytest.raises(TimeoutError):  # noqa: PT012 - TCP notices at connect
                    client.connect((bridged.host.at[version], BRIDGED))
                    client.send(b"question")
                    client.recv(1)
        assert nothing_arrived(resolver)
        assert guard.table.counters()["direct"] >= 2


@BOTH
def test_a_published_port_goes_on_and_its_answers_are_not_judged(place: Alley, version: int) -> None:
    with place.container.listen(version, place.container.at[version], SERVED) as server, guarded(place) as guard:
        with place.outside.tcp(version) as visitor:
            visitor.connect((place.host.at[version], PUBLISHED))
            connection, _ = server.accept()
            with connection:
                visitor.sendall(b"hello")
                assert connection.recv(10) == b"hello"
                connection.sendall(b"welcome")
                assert visitor.recv(10) == b"welcome"
        assert guard.listener.flows == []


@BOTH
def test_nobody_comes_in_but_by_a_published_port(bridged: Alley, version: int) -> None:
    """Straight to a container's address, as a neighbour on the link can: judged like all else."""
    bridged.outside.run("ip", "route", "add", f"{bridged.container.at[version]}", "via", bridged.host.at[version])
    here = (bridged.container.at[version], DENIED)
    with bridged.container.listen(version, *here) as server, guarded(bridged) as guard:
        with bridged.outside.tcp(version) as visitor:
            assert refusal(visitor, here) in REFUSALS | {110}
        assert nothing_arrived(server)
        assert [flow.dport for flow in guard.listener.flows] == [DENIED]


@BOTH
@KINDS
def test_what_was_up_before_goes_on_and_a_new_one_is_judged(
    bridged: Alley, version: int, kind: socket.SocketKind
) -> None:
    far = (STRANGER[version], DENIED)
    with sink_at(bridged.street, version, kind, far) as sink, bridged.container.socket(version, kind) as client:
        client.connect(far)
        client.send(b"before")
        server = sink.accept()[0] if kind == socket.SOCK_STREAM else sink
        with server, bridged.host.namespace.entered(), Conntrack() as conntrack:
            assert server.recv(10) == b"before"
            with guarded(bridged, replace(UP, passing=conntrack.connections())) as guard:
                client.send(b"still here")
                assert server.recv(10) == b"still here"
                with bridged.container.socket(version, kind) as another:
                    assert refusal(another, far) in REFUSALS
                assert len(guard.listener.flows) == 1


@BOTH
def test_nobody_borrows_an_address(bridged: Alley, version: int) -> None:
    """Root in a container may (Docker leaves it CAP_NET_RAW); answers and errors would carry its data to a stranger."""
    with guarded(bridged) as guard, bridged.container.udp(version) as client:
        option = (socket.IPPROTO_IP, IP_TRANSPARENT) if version == 4 else (socket.IPPROTO_IPV6, IPV6_FREEBIND)
        client.setsockopt(*option, 1)
        client.bind((STRANGER[version], 4321))
        for far in ((bridged.host.at[version], DENIED), (bridged.outside.at[version], ALLOWED)):
            client.sendto(b"secret", far)
        deadline = time.monotonic() + PATIENCE
        while (counted := guard.table.counters())["borrowed"] < 2:
            assert time.monotonic() < deadline, counted
        assert guard.listener.flows == []


@BOTH
@pytest.mark.parametrize("proto", [132, 47, 253], ids=["sctp", "gre", "experiment"])
def test_no_other_protocol_passes(bridged: Alley, version: int, proto: int) -> None:
    """Judged, or invalid already: what comes in has its checksum looked at."""
    with (
        bridged.outside.socket(version, socket.SOCK_RAW, proto) as sink,
        guarded(bridged) as guard,
        bridged.container.socket(version, socket.SOCK_RAW, proto) as client,
    ):
        client.sendto(b"exfiltration".ljust(32), (STRANGER[version], 0))
        deadline = time.monotonic() + PATIENCE
        while not (counted := guard.table.counters())["refused"] + counted["invalid"]:
            assert time.monotonic() < deadline, counted
        assert nothing_arrived_on(sink)


@BOTH
@pytest.mark.parametrize("action", [Action.ALLOW, Action.DENY])
def test_an_echo_is_judged(bridged: Alley, version: int, action: Action) -> None:
    proto = Proto.ICMP if version == 4 else Proto.ICMPV6
    with (
        guarded(bridged, judge=lambda _: action) as guard,
        bridged.container.socket(version, socket.SOCK_RAW, proto) as client,
    ):
        request = (
            struct.pack("!BBHHH", 8, 0, 0xF7AD, 77, 5) if version == 4 else struct.pack("!BBHHH", 128, 0, 0, 77, 5)
        )
        client.connect((STRANGER[version], 0))
        client.send(request)
        assert [flow.proto for flow in guard.listener.seen(1)] == [proto]
        if action is Action.ALLOW:
            assert client.recv(100)[-4:] == struct.pack("!HH", 77, 5)


@BOTH
def test_a_new_generation_judges_a_live_connection_once_more(bridged: Alley, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    verdicts = itertools.chain([Action.ALLOW, Action.ALLOW], itertools.repeat(Action.DENY))
    with (
        bridged.outside.listen(version, *far) as listening,
        guarded(bridged, judge=lambda _: next(verdicts)) as guard,
        bridged.container.tcp(version) as client,
    ):
        client.connect(far)
        server, _ = listening.accept()
        with server:
            guard.table.set_generation(1)
            client.send(b"a")
            assert server.recv(1) == b"a"
            guard.table.set_generation(2)
            client.send(b"b")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert nothing_arrived_on(server)


def nothing_arrived_on(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        connection.recv(1)
    except BlockingIOError:
        return True
    return False


@BOTH
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_a_network_that_appears_later_is_judged_too(bridged: Alley, version: int, kind: Kind) -> None:
    far = (STRANGER[version], DENIED)
    with bridged.outside.listen(version, *far) as sink, guarded(bridged) as guard:
        with behind(bridged.street, kind, 1) as (later, _), later.tcp(version) as client:
            assert refusal(client, far) in REFUSALS
        assert nothing_arrived(sink)
        assert len(guard.listener.flows) == 1


@BOTH
def test_without_a_listener_nothing_new_passes_and_what_was_allowed_goes_on(bridged: Alley, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    with bridged.outside.listen(version, *far) as listening, guarded(bridged) as guard:
        with bridged.container.tcp(version) as client, bridged.container.tcp(version) as late:
            client.connect(far)
            server, _ = listening.accept()
            guard.listener.stop()
            late.settimeout(0.3)
            with server, pytest.raises(TimeoutError):
                late.connect(far)
            client.send(b"still here")
        assert nothing_arrived(listening)


@BOTH
@pytest.mark.parametrize("listener", ["there", "gone"])
def test_audit_refuses_nothing(bridged: Alley, version: int, listener: str) -> None:
    far = (STRANGER[version], DENIED)
    with (
        sink_at(bridged.street, version, socket.SOCK_DGRAM, far) as sink,
        guarded(bridged, replace(UP, audit=True)) as guard,
    ):
        if listener == "gone":
            guard.listener.stop()
        with bridged.container.udp(version) as client:
            client.connect(far)
            client.send(b"x")
            assert received(sink) == b"x"
        assert bool(guard.listener.flows) is (listener == "there")


def test_the_engine_s_own_rules_stay(bridged: Alley) -> None:
    listed = [bridged.host.run(f"{program}-save") for program in ("iptables-nft", "ip6tables-nft")]
    before = [line for text in listed for line in text.splitlines() if not line.startswith(("#", ":"))]
    with in_force(bridged.host, UP):
        pass
    listed = [bridged.host.run(f"{program}-save") for program in ("iptables-nft", "ip6tables-nft")]
    assert [line for text in listed for line in text.splitlines() if not line.startswith(("#", ":"))] == before
