"""The resolver without sockets: judged first, bound before the reply, and repeated only while that is right."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.decide import Decision
from policy.rules import Flag, Kind, Rule
from policy.values import Action, Address, Flow, Owner, Proto, Query, Reason
from resolver import wire
from resolver.core import Core, Pending, Refusal, ResolverConfig
from resolver.exchange import Answered, Failed
from resolver.judge import Plain, Ruling
from resolver.message import Message, Record
from resolver.reply import Ede, Explanation
from resolver.upstreams import parse_upstream
from resolver.wire import wire_name

UPSTREAM = parse_upstream("192.0.2.53")
CLIENT = Flow(Proto.UDP, ip_address("127.0.0.1"), 40000, ip_address("127.0.0.1"), 53)
ALLOWED = Decision(Action.ALLOW, Reason.ALLOW_RULE, None, None)
DENIED = Decision(Action.DENY, Reason.NO_RULE, None, None)


def question(name: str = "www.example.com", qtype: int = wire.A, edns: int = 0, ident: int = 7) -> bytes:
    asked = dnslib.DNSRecord(dnslib.DNSHeader(id=ident, rd=1), q=dnslib.DNSQuestion(name, qtype))
    if edns:
        asked.add_ar(dnslib.EDNS0(udp_len=edns))
    return bytes(asked.pack())


def record(name: str = "www.example.com", text: str = "192.0.2.1", ttl: int = 60) -> Record:
    packed = ip_address(text).packed
    return Record(wire_name(name), wire.A if len(packed) == 4 else wire.AAAA, ttl, packed)


@dataclass
class World:
    """A core, its judge and what it bound. `order` is the order in which it asked and bound."""

    config: ResolverConfig = field(default_factory=lambda: ResolverConfig((UPSTREAM,)))
    decide: Callable[[Query], Decision] = lambda _: ALLOWED
    order: list[str] = field(default_factory=list)
    bound: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    judged: list[Query] = field(default_factory=list)
    core: Core = field(init=False)

    def __post_init__(self) -> None:
        self.core = Core(self.config, Plain(self._judge), self._bind)

    def _judge(self, query: Query) -> Decision:
        self.judged.append(query)
        return self.decide(query)

    def _bind(self, name: str, addresses: Sequence[tuple[Address, float]], _now: float) -> None:
        self.bound.append((name, {str(address): ttl for address, ttl in addresses}))

    def asks(self, data: bytes, now: float = 0.0, client: Flow = CLIENT) -> dnslib.DNSRecord | None:
        """What is answered without going upstream; None where it would have to."""
        result = self.core.receive(data, client, now)
        return dnslib.DNSRecord.parse(result) if isinstance(result, bytes) else None

    def resolves(self, data: bytes, *records: Record, now: float = 0.0, client: Flow = CLIENT) -> dnslib.DNSRecord:
        """A question that goes upstream and is answered there."""
        pending = self.core.receive(data, client, now)
        assert isinstance(pending, Pending)
        answer = Message(1, wire.QR, pending.question.asked, pending.question.qtype, records, ())
        return dnslib.DNSRecord.parse(self.core.conclude(pending, Answered(answer, UPSTREAM, 0.01), now))


def test_a_denied_name_never_becomes_pending() -> None:
    world = World(decide=lambda _: DENIED)
    reply = world.asks(question(edns=1232))
    assert reply is not None
    assert (reply.header.rcode, reply.header.qr, reply.header.ra, reply.header.aa) == (wire.NXDOMAIN, 1, 1, 0)
    assert (reply.auth[0].rtype, reply.auth[0].ttl, reply.auth[0].rdata.times[4]) == (wire.SOA, 5, 5)
    assert reply.ar[0].rdata[0].code == 15
    assert reply.ar[0].rdata[0].data == struct.pack("!H", Ede.BLOCKED) + b"dnsfw: no-rule"
    assert world.judged == [Query("www.example.com", wire.A, CLIENT)]
    assert (world.bound, world.core.counters.denied) == ([], 1)


def test_a_denial_that_may_soon_be_another_decision_is_not_told() -> None:
    class Waiting(Plain):
        def resolve(self, query: Query, owner: Owner | None, /) -> Ruling:
            return super().resolve(query, owner).but(silent=True)

    core = Core(ResolverConfig((UPSTREAM,)), Waiting(lambda _: DENIED), lambda *_: None)
    assert core.receive(question(), CLIENT, 0.0) is None
    assert core.counters.denied == 1


def test_no_edns_for_a_client_without() -> None:
    reply = World(decide=lambda _: DENIED).asks(question())
    assert reply is not None
    assert (reply.ar, len(reply.auth)) == ([], 1)


def test_refused_can_be_chosen() -> None:
    config = ResolverConfig((UPSTREAM,), refusal=Refusal.REFUSED)
    reply = World(config, decide=lambda _: DENIED).asks(question(edns=1232))
    assert reply is not None
    assert (reply.header.rcode, reply.auth) == (wire.REFUSED, [])
    assert reply.ar[0].rdata[0].data.startswith(struct.pack("!H", Ede.BLOCKED))


@pytest.mark.parametrize("action", [each for each in Action if each is not Action.ALLOW])
def test_whatever_is_not_allow_is_denied(action: Action) -> None:
    reply = World(decide=lambda _: DENIED.but(action=action)).asks(question())
    assert reply is not None
    assert reply.header.rcode == wire.NXDOMAIN


def test_an_answer_is_rebuilt_for_its_client_and_bound() -> None:
    world = World()
    reply = world.resolves(question("wWw.eXample.com", ident=99), record(), record("evil.net", "192.0.2.66"))
    assert (reply.header.id, str(reply.q.qname), reply.header.ad) == (99, "wWw.eXample.com.", 0)
    assert [str(each.rdata) for each in reply.rr] == ["192.0.2.1"]
    assert world.bound == [("www.example.com", {"192.0.2.1": 60.0})]


# A first repeat is answered from the answers, which makes a ready reply, and all later ones from that.
REPEATS = pytest.mark.parametrize("before", [0, 1, 2], ids=["answer kept", "ready reply", "ready reply again"])


@REPEATS
def test_a_repeated_question_is_judged_bound_and_aged_but_not_asked(before: int) -> None:
    world = World()
    world.resolves(question(), record(ttl=100), now=1000.0)
    for each in range(before):
        world.asks(question(), now=1000.5 + each)
    reply = world.asks(question("WWW.example.COM", ident=12345), now=1030.5)
    assert reply is not None
    assert (reply.header.id, str(reply.q.qname), reply.rr[0].ttl) == (12345, "WWW.example.COM.", 70)
    assert len(world.judged) == 2 + before
    assert world.bound[-1] == ("www.example.com", {"192.0.2.1": 70.0})
    assert world.core.counters.cached == len(world.bound) - 1 == 1 + before
    assert world.asks(question(), now=1100.0) is None, "what has run out is asked again"


def test_ttls_are_counted_from_the_answer_each_time() -> None:
    world = World()
    world.resolves(question(), record(ttl=100), now=10.0)
    replies = [world.asks(question(), now=10.0 + each / 4) for each in range(40)]
    assert [reply and reply.rr[0].ttl for reply in replies] == [100 - each // 4 for each in range(40)]


@REPEATS
def test_a_cached_answer_is_denied_as_soon_as_the_judge_says_so(before: int) -> None:
    world = World()
    world.resolves(question(), record())
    for _ in range(before):
        world.asks(question())
    world.decide = lambda _: DENIED
    reply = world.asks(question())
    assert reply is not None
    assert (reply.header.rcode, reply.rr) == (wire.NXDOMAIN, [])
    assert len(world.bound) == 1 + before


@REPEATS
def test_an_answer_for_a_private_rule_is_not_repeated_for_another(before: int) -> None:
    rule = Rule(Action.ALLOW, Kind.ADDRESS, ip_network("192.0.2.0/24"))
    private = ALLOWED.but(rule=replace(rule, flags=frozenset({Flag.PRIVATE})))
    world = World(decide=lambda _: private)
    assert len(world.resolves(question(), record(text="10.0.0.1")).rr) == 1
    for _ in range(before):
        world.asks(question())
    world.decide = lambda _: ALLOWED.but(rule=rule)
    assert world.asks(question()) is None
    reply = world.resolves(question(edns=1232), record(text="10.0.0.1"))
    assert (reply.rr, reply.header.rcode) == ([], wire.NOERROR)
    assert reply.ar[0].rdata[0].data.startswith(struct.pack("!H", Ede.BLOCKED))
    assert len(world.bound) == 1 + before, "bound only while it was private"


def waiting(world: World) -> tuple[Pending, Answered]:
    """A question that waits, and an answer to it with a private address and a public one."""
    pending = world.core.receive(question(), CLIENT, 0.0)
    assert isinstance(pending, Pending)
    records = (record(text="10.0.0.1"), record())
    return pending, Answered(Message(1, wire.QR, pending.question.asked, wire.A, records, ()), UPSTREAM, 0.01)


def test_what_waits_while_the_policy_changes_is_judged_by_the_new_one() -> None:
    world = World()
    pending, answer = waiting(world)
    world.decide = lambda _: DENIED
    world.core.policy_changed()
    reply = dnslib.DNSRecord.parse(world.core.conclude(pending, answer, 1.0))
    assert (reply.header.rcode, reply.rr, world.bound) == (wire.NXDOMAIN, [], [])
    assert (len(world.judged), world.core.counters.revoked) == (2, 1)


def test_what_waits_gets_the_rights_of_the_new_rule() -> None:
    rule = Rule(Action.ALLOW, Kind.ADDRESS, ip_network("192.0.2.0/24"), flags=frozenset({Flag.PRIVATE}))
    world = World(decide=lambda _: ALLOWED.but(rule=rule))
    pending, answer = waiting(world)
    world.decide = lambda _: ALLOWED.but(rule=replace(rule, flags=frozenset()))
    world.core.policy_changed()
    reply = dnslib.DNSRecord.parse(world.core.conclude(pending, answer, 1.0))
    assert [str(each.rdata) for each in reply.rr] == ["192.0.2.1"]


def test_what_waits_is_judged_once_while_the_policy_stays() -> None:
    world = World()
    pending, answer = waiting(world)
    world.core.conclude(pending, answer, 1.0)
    assert len(world.judged) == 1


def test_another_client_format_is_answered_from_what_is_known() -> None:
    world = World()
    world.resolves(question(), record())
    reply = world.asks(question(edns=4096))
    assert reply is not None
    assert (len(reply.rr), reply.ar[0].edns_len) == (1, 1232)


@pytest.mark.parametrize(("ttl", "bound"), [(0, 60.0), (10, 60.0), (600, 600.0), (10**6, 3600.0)])
def test_bindings_have_a_floor_and_a_cap(ttl: int, bound: float) -> None:
    world = World()
    world.resolves(question(), record(ttl=ttl))
    assert world.bound == [("www.example.com", {"192.0.2.1": bound})]


def test_an_answer_with_a_ttl_of_zero_is_not_repeated() -> None:
    world = World()
    world.resolves(question(), record(ttl=0))
    assert world.asks(question()) is None


def test_what_does_not_fit_is_truncated_over_udp_and_whole_over_tcp() -> None:
    many = [record(text=f"192.0.2.{each}") for each in range(1, 101)]
    world = World()
    reply = world.resolves(question(), *many)
    assert (reply.header.tc, reply.rr) == (1, [])
    tcp = CLIENT.but(proto=Proto.TCP)
    whole = world.asks(question(), client=tcp)
    assert whole is not None
    assert (whole.header.tc, len(whole.rr)) == (0, 100)
    assert len(world.bound[0][1]) == 100


def test_a_truncated_reply_stays_one() -> None:
    world = World()
    world.resolves(question(), *[record(text=f"192.0.2.{each}") for each in range(1, 101)])
    for now in (0.5, 2.5):
        reply = world.asks(question(), now)
        assert reply is not None
        assert (reply.header.tc, reply.rr) == (1, [])


def test_a_failure_is_servfail_and_remembered_for_a_moment() -> None:
    world = World()
    for now, explanation in ((0.0, Explanation(Ede.NETWORK_ERROR, "why")), (2.5, None)):
        pending = world.core.receive(question(edns=1232), CLIENT, now)
        assert isinstance(pending, Pending)
        reply = dnslib.DNSRecord.parse(world.core.conclude(pending, Failed(explanation), now))
        assert reply.header.rcode == wire.SERVFAIL
        again = world.asks(question(edns=1232), now + 1.9)
        assert again is not None
        assert again.header.rcode == wire.SERVFAIL
        options = [option.data for option in again.ar[0].rdata]
        assert options == ([struct.pack("!H", 23) + b"why"] if explanation else [])


def test_an_alias_loop_is_servfail() -> None:
    world = World()
    loop = Record(wire_name("www.example.com"), wire.CNAME, 60, wire_name("www.example.com"))
    reply = world.resolves(question(), loop)
    assert (reply.header.rcode, reply.rr, world.bound) == (wire.SERVFAIL, [], [])


def test_any_is_answered_without_asking_anyone() -> None:
    reply = World().asks(question(qtype=255))
    assert reply is not None
    assert [each.rtype for each in reply.rr] == [wire.HINFO]


def test_any_of_a_denied_name_is_denied() -> None:
    reply = World(decide=lambda _: DENIED).asks(question(qtype=255))
    assert reply is not None
    assert reply.header.rcode == wire.NXDOMAIN


def test_memory_is_bounded_under_churn() -> None:
    config = ResolverConfig((UPSTREAM,), cache_octets=100_000)
    world = World(config)
    for each in range(500):
        world.resolves(question(f"n{each}.example.com"), record(f"n{each}.example.com"))
    kept = sum(world.asks(question(f"n{each}.example.com")) is not None for each in range(500))
    assert 20 < kept < 100
    assert world.asks(question("n499.example.com")) is not None, "the latest stays"
    assert world.asks(question("n0.example.com")) is None, "the oldest goes"


@settings(deadline=None)  # how long it takes on a busy machine proves nothing
@given(st.binary(max_size=100), st.booleans())
def test_garbage_is_never_looked_up(data: bytes, headed: bool) -> None:
    world = World(decide=lambda _: DENIED)
    result = world.core.receive((question()[:12] if headed else b"") + data, CLIENT, 0.0)
    assert result is None or (isinstance(result, bytes) and len(result) >= 12)
    assert world.bound == []


def test_every_message_is_counted_once() -> None:
    world = World(decide=lambda query: DENIED if "evil" in query.name else ALLOWED)
    world.resolves(question(), record())
    for data in (question(), question("evil.net"), b"", b"\0\1\x81\0" + bytes(8), question(qtype=252)):
        world.asks(data)
    counters = world.core.counters
    outcomes = (counters.cached, counters.denied, counters.ignored, counters.rejected)
    assert (counters.queries, outcomes) == (6, (1, 1, 2, 1))
