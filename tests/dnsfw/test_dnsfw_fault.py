"""An error of our own while judging: that query or packet is denied, it is journalled, and the guard lives on."""

from __future__ import annotations

import errno
import select
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from dnslib import RCODE, DNSRecord

from dnsfw.engine.gate import Gate
from dnsfw.journal.records import Entry, to_record
from dnsfw.machine.namespaces import NetworkNamespace
from firewall.answers import Answer
from firewall.packet import PacketError
from firewall.peeks import Peeks
from firewall.queue import Queue
from firewall.ruleset import Plan
from firewall.table import Table
from policy import Action, Bindings, Flow, Owner, Query, Reason
from policy.parse import parse
from resolver.core import Pending, ResolverConfig
from resolver.server import Resolver
from resolver.upstreams import Upstream

OWNER = Owner(pid=7, start_time=70, uid=1000, exe="/usr/bin/git", argv=("git",), cgroup="/job")
QUEUE = 7
NEAR = {4: ("10.77.0.1/24", "10.77.0.2"), 6: ("fd77::1/64", "fd77::2")}


class Attribution:
    """Names the owner, until it breaks."""

    def __init__(self) -> None:
        self.broken = True

    def of(self, flow: Flow) -> Owner | None:
        if self.broken:
            raise RuntimeError(f"no owner of port {flow.sport} today")
        return OWNER


def gate(attribution: Attribution, entries: list[Entry], *, audit: bool = False) -> Gate:
    policy = parse("allowed.example\n10.77.0.2:7/udp\n[fd77::2]:7/udp\n", "p")
    return Gate(policy, Bindings(), attribution.of, entries.append, lambda: 0.0, audit)


@pytest.mark.parametrize("audit", [False, True], ids=["enforce", "audit"])
def test_a_query(audit: bool) -> None:
    attribution, entries = Attribution(), list[Entry]()
    judge = gate(attribution, entries, audit=audit)
    config = ResolverConfig((Upstream(ip_address("192.0.2.1")),))
    resolver = Resolver(config, judge, judge.bindings.bind, lambda: 0.0, judge.fault)
    asked = bytes(DNSRecord.question("allowed.example").pack())
    client = Flow(17, ip_address("198.18.0.2"), 40_000, ip_address("127.0.0.1"), 53053)
    answer = resolver.take(asked, client, 0.0)
    assert isinstance(answer, bytes)
    assert DNSRecord.parse(answer).header.rcode == RCODE.SERVFAIL
    (entry,) = entries
    assert (entry.decision.action, entry.decision.reason) == (Action.DENY, Reason.FAULT)
    assert entry.subject == Query("allowed.example", 1, client)
    assert to_record(entry, 0.0, "enforce").fault == "RuntimeError: no owner of port 40000 today"
    attribution.broken = False
    assert isinstance(resolver.take(asked, client, 0.0), Pending)


@pytest.fixture
def network() -> Iterator[NetworkNamespace]:
    """A namespace with a way out that leads nowhere."""
    with NetworkNamespace() as namespace, namespace.entered():
        lines = ["link set lo up", "link add out type veth peer name far", "link set far up", "link set out up"]
        for version, (own, other) in NEAR.items():
            lines.append(f"address add {own} dev out{' nodad' * (version == 6)}")
            lines.append(f"neighbour add {other} lladdr 02:00:00:00:00:02 dev out")
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
        yield namespace


@pytest.mark.kernel("root", "netns", "nft", "nfqueue")
@pytest.mark.parametrize("version", [4, 6])
def test_a_packet(network: NetworkNamespace, version: int) -> None:
    assert network.fd  # entered
    attribution, entries = Attribution(), list[Entry]()
    judge = gate(attribution, entries)

    def fault(error: BaseException, _packet: bytes) -> None:
        judge.fault(error, None)

    def malformed(error: PacketError, _packet: bytes) -> None:
        judge.unreadable(error)

    peeks = Peeks(judge)

    def answer(flow: Flow, packet: bytes) -> Answer:
        return peeks.answer(flow, packet, 0.0)

    with Queue(QUEUE, answer, fault, malformed) as queue, Table(Plan(53053, QUEUE)):
        assert sent(queue, version) in {errno.EHOSTUNREACH, errno.EACCES}  # ICMP's admin-prohibited: denied, at once
        (entry,) = entries
        assert (entry.decision.action, entry.decision.reason) == (Action.DENY, Reason.FAULT)
        assert entry.fault is not None
        assert entry.fault.startswith("RuntimeError: no owner of port ")
        attribution.broken = False
        assert sent(queue, version) == 0
        assert (entries[-1].decision.action, entries[-1].owner) == (Action.ALLOW, OWNER)


def sent(queue: Queue, version: int) -> int:
    """Send a datagram and answer for it; the error that its sender sees."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((NEAR[version][1], 7))
        sock.send(b"hello")
        assert select.select([queue.fileno()], [], [], 5)[0]
        queue.drain()
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
