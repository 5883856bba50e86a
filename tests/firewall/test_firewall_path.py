"""The way of a packet out of a guarded namespace: real sockets, the real kernel."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, repeat

import pytest

from firewall.marks import Mark, connection_mark
from firewall.ruleset import counters
from policy.values import Action, Flow, Proto, address
from tests.firewall.street import (
    ALLOWED,
    BOTH,
    DENIED,
    KERNEL,
    KINDS,
    PATIENCE,
    PLAN,
    REFUSALS,
    STRANGER,
    Kind,
    Street,
    guarding,
    nothing_arrived,
    refusal,
    sink_at,
)

pytestmark = KERNEL

TCP_REPAIR = 19  # <linux/tcp.h>


@BOTH
def test_an_allowed_connection_costs_the_queue_one_packet(street: Street, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    with (
        street.outside.listen(version, *far) as listening,
        guarding(street) as guard,
        street.inside.tcp(version) as client,
    ):
        client.connect(far)
        server, _ = listening.accept()
        with server:
            client.sendall(b"x" * 100_000)
            client.shutdown(socket.SHUT_WR)
            assert sum(len(part) for part in iter(lambda: server.recv(65536), b"")) == 100_000
            server.sendall(b"y")
            assert client.recv(1) == b"y"
        here = client.getsockname()
        assert guard.listener.flows == [Flow(Proto.TCP, address(here[0]), here[1], address(far[0]), far[1])]


@BOTH
@KINDS
def test_what_is_denied_is_refused_at_once(street: Street, version: int, kind: Kind) -> None:
    far = (STRANGER[version], DENIED)
    with (
        sink_at(street, version, kind, far) as sink,
        guarding(street) as guard,
        street.inside.socket(version, kind) as client,
    ):
        started = time.monotonic()
        assert refusal(client, far) in REFUSALS
        assert time.monotonic() - started < 0.5
        assert nothing_arrived(sink)
        assert guard.table.counters()["refused"] == 1


def test_inspection_without_a_proxy_denies(street: Street) -> None:
    far = (STRANGER[4], ALLOWED)
    with (
        street.outside.listen(4, *far) as listening,
        guarding(street, judge=lambda _: Action.INSPECT),
        street.inside.tcp(4) as client,
    ):
        assert refusal(client, far) in REFUSALS
        assert nothing_arrived(listening)


@BOTH
def test_a_fault_while_judging_denies_that_packet_and_is_told(street: Street, version: int) -> None:
    faults = iter([ValueError("broken on purpose")])

    def judge(_: Flow) -> Action:
        for fault in faults:
            raise fault
        return Action.ALLOW

    far = (STRANGER[version], ALLOWED)
    with street.outside.listen(version, *far), guarding(street, judge=judge) as guard:
        with street.inside.tcp(version) as client:
            assert refusal(client, far) in REFUSALS
        assert [str(fault) for fault in guard.listener.faults] == ["broken on purpose"]
        with street.inside.tcp(version) as client:
            client.connect(far)  # the queue lives on


SYNS = """
table inet observer {
  counter sent { }
  chain out {
    type filter hook postrouting priority 0;
    tcp flags & (syn | ack) == syn counter name sent
  }
}
"""


@BOTH
def test_a_new_connection_is_judged_where_an_old_one_with_its_ports_was_allowed(street: Street, version: int) -> None:
    street.inside.run("nft", "-f", "-", stdin=SYNS)
    far, here = (STRANGER[version], ALLOWED), (street.inside.at[version], 4321)
    verdicts = chain([Action.ALLOW], repeat(Action.DENY))
    with street.outside.listen(version, *far), guarding(street, judge=lambda _: next(verdicts)):
        with street.inside.tcp(version) as old:
            old.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            old.bind(here)
            old.connect(far)
            old.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)  # so that closing it says nothing
        with street.inside.tcp(version) as new:
            new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            new.bind(here)
            assert refusal(new, far) in REFUSALS
        assert counters(street.inside.run("nft", "list", "counters", "table", "inet", "observer")) == {"sent": 1}


@BOTH
def test_what_is_allowed_once_is_judged_datagram_by_datagram(street: Street, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    with (
        street.outside.receive(version, *far) as sink,
        guarding(street, judge=lambda _: Action.ONCE) as guard,
        street.inside.udp(version) as client,
    ):
        client.connect(far)
        for count in (1, 2, 3):
            client.send(b"x")
            assert sink.recv(10) == b"x"
            assert len(guard.listener.flows) == count


def test_a_udp_verdict_is_a_lease(street: Street) -> None:
    """Of both families: their leases end at the same time."""
    with ExitStack() as stack:
        sinks = {v: stack.enter_context(street.outside.receive(v, STRANGER[v], ALLOWED)) for v in (4, 6)}
        guard = stack.enter_context(guarding(street, replace(PLAN, lease=1)))
        clients = {v: stack.enter_context(street.inside.udp(v)) for v in (4, 6)}

        def send(version: int) -> int:
            """How many judgements it has had by then."""
            clients[version].send(b"x")
            assert sinks[version].recv(10) == b"x"
            return sum(flow.dst.version == version for flow in guard.listener.flows)

        for version, client in clients.items():
            client.connect((STRANGER[version], ALLOWED))
            assert [send(version) for _ in range(3)] == [1, 1, 1]
        for version in clients:
            deadline = time.monotonic() + PATIENCE
            while (judged := send(version)) == 1 and time.monotonic() < deadline:
                time.sleep(0.05)  # until the kernel's clock has ended the lease
            assert judged == 2


@BOTH
def test_a_lease_is_one_flow_s(street: Street, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    with (
        street.outside.receive(version, *far) as sink,
        guarding(street) as guard,
        street.inside.udp(version) as client,
    ):
        client.sendto(b"x", far)
        assert sink.recv(10) == b"x"
        assert refusal(client, (STRANGER[version], DENIED)) in REFUSALS
        with street.inside.udp(version) as another:
            another.sendto(b"x", far)
            assert sink.recv(10) == b"x"
        assert [flow.dport for flow in guard.listener.flows] == [ALLOWED, DENIED, ALLOWED]


@BOTH
def test_a_datagram_longer_than_what_is_copied_and_than_the_link_goes_through(street: Street, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    with (
        street.outside.receive(version, *far) as sink,
        guarding(street) as guard,
        street.inside.udp(version) as client,
    ):
        client.sendto(b"x" * 5000, far)
        assert len(sink.recv(65536)) == 5000
        assert guard.listener.malformed == []


@pytest.mark.parametrize(
    ("version", "far"),
    [(4, ("224.0.0.251", 5353)), (6, ("ff02::fb%veth0", 5353)), (4, ("255.255.255.255", 9)), (4, ("10.77.0.255", 9))],
    ids=["multicast v4", "multicast v6", "broadcast", "the link's broadcast"],
)
def test_multicast_and_broadcast_are_judged(street: Street, version: int, far: tuple[str, int]) -> None:
    with guarding(street) as guard, street.inside.udp(version) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        with street.inside.namespace.entered():
            target = socket.getaddrinfo(*far, type=socket.SOCK_DGRAM)[0][4]
        client.sendto(b"x", target)
        (flow,) = guard.listener.seen(1)
        assert (str(flow.dst), flow.dport) == (far[0].partition("%")[0], far[1])


@pytest.mark.parametrize("mark", [*Mark, connection_mark(Mark.ALLOW, 0), 0xFFFF_FFFF], ids=hex)
@KINDS
def test_a_program_s_own_mark_opens_nothing(street: Street, kind: Kind, mark: int) -> None:
    with guarding(street) as guard, street.inside.socket(4, kind) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        assert refusal(client, (STRANGER[4], DENIED)) in REFUSALS
        assert len(guard.listener.flows) == 1


@pytest.mark.parametrize("program", ["iptables-nft", "ip6tables-nft"])
def test_a_mark_that_an_administrator_saves_is_no_verdict(street: Street, program: str) -> None:
    version = 4 if program == "iptables-nft" else 6
    street.inside.run(program, "-t", "mangle", "-A", "OUTPUT", "-j", "CONNMARK", "--save-mark")
    with guarding(street) as guard:
        for count in (1, 2):
            with street.inside.tcp(version) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", connection_mark(Mark.ALLOW, 0)))
                assert refusal(client, (STRANGER[version], DENIED)) in REFUSALS
            assert len(guard.listener.flows) == count


OBSERVER = f"""
table inet observer {{
  counter sent {{ }}
  counter theirs {{ }}
  chain out {{
    type filter hook postrouting priority 0;
    tcp dport {ALLOWED} counter name sent
    tcp dport {ALLOWED} meta mark 0x00abcdef counter name theirs
  }}
}}
"""


def test_other_bits_of_a_mark_are_kept_and_ours_do_not_stay(street: Street) -> None:
    street.inside.run("nft", "-f", "-", stdin=OBSERVER)
    far = (STRANGER[4], ALLOWED)
    with street.outside.listen(4, *far), guarding(street), street.inside.tcp(4) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", 0x00AB_CDEF))
        client.connect(far)
        counted = counters(street.inside.run("nft", "list", "counters", "table", "inet", "observer"))
        assert counted["sent"] == counted["theirs"] >= 2
