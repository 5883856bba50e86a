"""Replies repeated without asking the judge: within a second, to the same owner, under the same policy, and counted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import dnslib
import pytest

from policy.decide import Decision
from policy.values import Action, Address, Flow, Owner, Proto, Query, Reason
from resolver import wire
from resolver.core import Core, Pending, ResolverConfig
from resolver.exchange import Answered
from resolver.judge import Ruling
from resolver.listeners import make_listeners
from resolver.message import Message, Record
from resolver.repeats import Repeats
from resolver.server import Resolver
from resolver.upstreams import parse_upstream
from resolver.wire import wire_name

UPSTREAM = parse_upstream("192.0.2.53")
CLIENT = Flow(Proto.UDP, ip_address("127.0.0.1"), 40000, ip_address("127.0.0.1"), 53)
GIT = Owner(pid=7, start_time=70, uid=1000, exe="/usr/bin/git", argv=("git",), cgroup="/")
CURL = replace(GIT, pid=8, exe="/usr/bin/curl")


def question(name: str = "www.example.com", qtype: int = wire.A, ident: int = 7) -> bytes:
    return bytes(dnslib.DNSRecord(dnslib.DNSHeader(id=ident, rd=1), q=dnslib.DNSQuestion(name, qtype)).pack())


@dataclass
class Judge:
    """Allows `*.example.com` to `allowed`; `told` is what came again, by name."""

    owner: Owner | None = GIT
    allowed: Owner | None = GIT
    repeatable: bool = True
    asked: list[str] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)

    def owner_of(self, _client: Flow, /) -> Owner | None:
        return self.owner

    def resolve(self, query: Query, owner: Owner | None, /) -> Ruling:
        self.asked.append(query.name)
        good = owner == self.allowed and query.name.endswith(".example.com")
        action, reason = (Action.ALLOW, Reason.ALLOW_RULE) if good else (Action.DENY, Reason.NO_RULE)
        return Ruling(Decision(action, reason, None, None), self._again(query.name) if self.repeatable else None)

    def _again(self, name: str) -> Callable[[int], None]:
        def again(times: int) -> None:
            self.told[name] = self.told.get(name, 0) + times

        return again


@dataclass
class World:
    """A core and its judge. `asks` is what a listener does with one datagram."""

    judge: Judge = field(default_factory=Judge)
    bound: list[str] = field(default_factory=list)
    core: Core = field(init=False)

    def __post_init__(self) -> None:
        self.core = Core(ResolverConfig((UPSTREAM,)), self.judge, self._bind)

    def _bind(self, name: str, _addresses: Sequence[tuple[Address, float]], _now: float) -> None:
        self.bound.append(name)

    def asks(self, data: bytes, now: float) -> int:
        """The rcode of the reply."""
        told = self.core.told(CLIENT, now)
        if repeat := told.ready.get(data[2:]):
            repeat.times += 1
            return (data[:2] + repeat.rest)[3] & wire.RCODE
        result = self.core.receive(data, CLIENT, now, told)
        if isinstance(result, Pending):
            record = Record(wire_name(result.query.name), wire.A, 60, ip_address("192.0.2.1").packed)
            answer = Message(1, wire.QR, result.question.asked, wire.A, (record,), ())
            result = self.core.conclude(result, Answered(answer, UPSTREAM, 0.01), now)
        assert result is not None
        return result[3] & wire.RCODE

    def warmed(self) -> World:
        """The name's reply is ready to be repeated, at second 100."""
        assert [self.asks(question(ident=each), 100.0) for each in range(3)] == [0, 0, 0]
        assert len(self.core.told(CLIENT, 100.0).ready) == 1
        self.judge.asked.clear()
        return self


def test_within_a_second_the_judge_is_not_asked_again_and_told_of_all() -> None:
    world = World().warmed()
    assert [world.asks(question(ident=each), 100.0 + each / 100) for each in range(50)] == [0] * 50
    assert (world.judge.asked, world.judge.told) == ([], {})
    world.core.settle()
    assert world.judge.told == {"www.example.com": 50}
    counters = world.core.counters
    assert (counters.queries, counters.cached, counters.denied) == (53, 52, 0)


def test_the_next_second_asks_the_judge_and_binds_again() -> None:
    world = World().warmed()
    world.bound.clear()
    world.asks(question(), 101.0)
    assert (world.judge.asked, world.bound) == (["www.example.com"], ["www.example.com"])


def test_a_denial_is_repeated_and_counted_as_one() -> None:
    world = World()
    assert [world.asks(question("evil.test", ident=each), 100.0) for each in range(10)] == [wire.NXDOMAIN] * 10
    world.core.settle()
    assert (world.judge.asked, world.judge.told) == (["evil.test"], {"evil.test": 9})
    assert (world.core.counters.denied, world.core.counters.cached) == (10, 0)


def test_another_policy_is_asked_at_once() -> None:
    world = World().warmed()
    world.asks(question(), 100.5)
    world.judge.allowed = CURL
    world.core.policy_changed()
    assert world.judge.told == {"www.example.com": 1}, "what the old one allowed is told as that"
    assert world.asks(question(), 100.5) == wire.NXDOMAIN


def test_another_owner_is_asked_about() -> None:
    world = World().warmed()
    world.judge.owner = CURL
    assert world.asks(question(), 100.5) == wire.NXDOMAIN
    world.judge.owner = None
    assert world.asks(question(), 100.5) == wire.NXDOMAIN
    world.judge.owner = GIT
    assert world.asks(question(), 100.5) == wire.NOERROR
    assert world.judge.asked == ["www.example.com"] * 2


def test_a_judge_that_wants_to_be_asked_is() -> None:
    world = World(Judge(repeatable=False))
    for each in range(5):
        world.asks(question(ident=each), 100.0)
    assert len(world.judge.asked) == 5


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(question("WWW.example.com"), id="another-case"),
        pytest.param(question(qtype=wire.AAAA), id="another-type"),
        pytest.param(question("n.example.com"), id="another-name"),
        pytest.param(question() + b"\0", id="octets-behind"),
        pytest.param(question()[:-1], id="cut"),
    ],
)
def test_other_octets_are_another_question(other: bytes) -> None:
    ready = World().warmed().core.told(CLIENT, 100.0).ready
    assert other[2:] not in ready


def test_no_reply_outlives_its_ttl() -> None:
    world = World()
    for now in (100.4, 100.5, 160.1, 160.2):  # kept until 160.4, before the second is over
        world.asks(question(), now)
    assert world.core.told(CLIENT, 160.3).ready == {}


def test_it_is_bounded_in_replies_and_in_owners() -> None:
    repeats = Repeats()
    told = repeats.of(None, 100.0)
    for number in range(5000):
        repeats.keep(told, b"id%d" % number, b"idreply", lambda _: None)
    assert len(repeats) == len(told.ready) == 1024
    for number in range(5000):
        repeats.of(replace(GIT, pid=number), 100.0)
    assert len(repeats) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_on_a_socket_repeats_and_others_stand_side_by_side(host: str) -> None:
    """Replies that are ready, replies that must be thought about, and datagrams that get none, in one batch."""

    async def scene() -> None:
        judge = Judge()
        resolver = Resolver(
            ResolverConfig((UPSTREAM,)), judge, lambda *_: None, lambda: 100.0, lambda error, _: pytest.fail(str(error))
        )
        listeners = make_listeners()
        port, loop = listeners.port, asyncio.get_running_loop()
        await resolver.serve(loop, listeners.udp, listeners.tcp)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.connect((host, port))
            for ident in range(150):
                client.send(
                    (question("evil.test", ident=ident), b"too short", question(f"n{ident}.test", ident=ident))[
                        ident % 3
                    ]
                )
            async with asyncio.timeout(5):
                replies = [await loop.sock_recv(client, 4096) for _ in range(100)]
        await resolver.close()
        assert [int.from_bytes(each[:2]) for each in replies] == [each for each in range(150) if each % 3 != 1]
        for reply in replies:
            parsed = dnslib.DNSRecord.parse(reply)
            expected = "evil.test." if parsed.header.id % 3 == 0 else f"n{parsed.header.id}.test."
            assert (parsed.header.rcode, str(parsed.q.qname)) == (wire.NXDOMAIN, expected)
        assert judge.told == {"evil.test": 49}
        assert (resolver.counters.queries, resolver.counters.denied, resolver.counters.ignored) == (150, 100, 50)

    asyncio.run(scene())
