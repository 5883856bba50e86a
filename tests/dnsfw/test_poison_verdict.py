"""Verdicts: each expectation, met and missed, without a socket."""

from __future__ import annotations

from typing import Any

import dnslib
import pytest

from dnsfw.poison.client import Answer, Asked
from dnsfw.poison.messages import Arrived, read_question
from dnsfw.poison.scenario import Ask, Bound, FlowCheck, Reply, Scenario, Sent
from dnsfw.poison.verdict import Observed, Outcome, Probe, Standard, judge

ZONE = "z.example."
NOTHING = Reply()
OWES_ALL, PEER = Standard(owes_all=True), Standard()
NAME = b"\3www\1z\7example\0"
MESSAGE = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + NAME + b"\0\1\0\1"


def asked(expect: Reply, *replies: bytes, harden: Reply = NOTHING, seconds: float = 0.1) -> Asked:
    ask = Ask(expect=expect, harden=harden)
    return Asked(ask, MESSAGE, MESSAGE[12:], [Answer(reply, seconds) for reply in replies])


def reply(*addresses: str, rcode: int = 0, ttl: int = 60, **flags: int) -> bytes:
    made = dnslib.DNSRecord.parse(MESSAGE).reply()
    made.header.rcode = rcode
    for key, value in flags.items():
        setattr(made.header, key, value)
    for each in addresses:
        made.add_answer(dnslib.RR("www.z.example", ttl=ttl, rdata=dnslib.A(each)))
    return bytes(made.pack())


def outcome(one: Asked, standard: Standard = PEER, **scenario: Any) -> Outcome:
    played = Scenario("t", 1, "r", id="s", **scenario)
    return judge(played, Observed(ZONE, [one], []), standard).outcome


@pytest.mark.parametrize(
    ("expect", "good", "bad"),
    [
        (Reply(rcode="NOERROR"), reply(), reply(rcode=2)),
        (Reply(rcode=("REFUSED", "SERVFAIL")), reply(rcode=5), reply(rcode=3)),
        (Reply(addresses=("192.0.2.1",)), reply("192.0.2.1"), reply("192.0.2.1", "192.0.2.2")),
        (Reply(addresses=()), reply(), reply("192.0.2.1")),
        (Reply(absent=("192.0.2.1",)), reply("192.0.2.2"), reply("192.0.2.1")),
        (Reply(lacks=("c0000201",)), reply("192.0.2.2"), reply("192.0.2.1")),
        (Reply(records=1), reply("192.0.2.1"), reply()),
        (Reply(truncated=True), reply(tc=1), reply()),
        (Reply(ttl_at_most=60), reply("192.0.2.1"), reply("192.0.2.1", ttl=61)),
        (Reply(size_at_most=60), reply("192.0.2.1"), reply("192.0.2.1", "192.0.2.2", "192.0.2.3")),
        (Reply(), reply(), reply(id=7)),
        (Reply(), reply(), reply(qr=0)),
        (Reply(), reply(), reply().replace(NAME, NAME.swapcase())),
        (Reply(records=0), reply(), reply()[:-2]),
    ],
    ids=[
        "rcode", "rcodes", "addresses", "no-addresses", "absent", "lacks", "records", "truncated", "ttl", "size", "id",
        "qr", "case", "unreadable",
    ],
)  # fmt: skip
def test_replies(expect: Reply, good: bytes, bad: bytes) -> None:
    assert outcome(asked(expect, good)) is Outcome.HOLDS
    assert outcome(asked(expect, bad)) is Outcome.FAILS


def test_when_there_is_no_reply_or_there_are_two() -> None:
    assert outcome(asked(Reply())) is Outcome.FAILS
    assert outcome(asked(Reply(optional=True))) is Outcome.HOLDS
    assert outcome(asked(Reply(silent=True))) is Outcome.HOLDS
    assert outcome(asked(Reply(silent=True), reply())) is Outcome.FAILS
    assert outcome(asked(Reply(), reply(), reply())) is Outcome.FAILS
    assert outcome(asked(Reply(within=0.5), reply(), seconds=0.6)) is Outcome.FAILS


def test_an_extended_error_is_found() -> None:
    record = dnslib.DNSRecord.parse(reply())
    record.add_ar(dnslib.EDNS0(opts=[dnslib.EDNSOption(15, b"\0\x0f")]))
    assert outcome(asked(Reply(ede=15), bytes(record.pack()))) is Outcome.HOLDS
    assert outcome(asked(Reply(ede=15), reply())) is Outcome.FAILS


def test_hardening_is_owed_by_who_promised_it() -> None:
    one = asked(Reply(rcode="SERVFAIL"), reply(rcode=2), harden=Reply(within=0.05))
    assert outcome(one) is Outcome.LACKS
    assert outcome(one, OWES_ALL) is Outcome.FAILS
    missing = asked(Reply(rcode="SERVFAIL"), reply())
    assert outcome(missing, level="hardening") is Outcome.LACKS
    assert outcome(missing, OWES_ALL, level="hardening") is Outcome.FAILS


def test_trouble_fails_even_hardening() -> None:
    seen = Observed(ZONE, [asked(Reply(), reply())], [], trouble=["it ended"])
    assert judge(Scenario("t", 1, "r", level="hardening"), seen, PEER).outcome is Outcome.FAILS


def arrived(ident: int, port: int, name: bytes = NAME, over: Any = "udp") -> Arrived:
    found = read_question(ident.to_bytes(2) + MESSAGE[2:12] + name + MESSAGE[-4:], ("127.0.0.1", port), over)
    assert found is not None
    return found


SPREAD = [arrived(1 + 9001 * i, 1024 + 7001 * i) for i in range(5)]


@pytest.mark.parametrize(
    ("sent", "good", "bad"),
    [
        (Sent(questions=1), SPREAD[:1], SPREAD[:2]),
        (Sent(at_most=1), [], SPREAD[:2]),
        (Sent(at_least=2), SPREAD[:2], SPREAD[:1]),
        (Sent(never=("www",)), [arrived(1, 1, b"\3wwx\1z\7example\0")], [arrived(1, 1, NAME.upper())]),
        (Sent(over_tcp_at_least=1), [arrived(1, 1, over="tcp")], [arrived(1, 1)]),
        (Sent(ports_at_least=5), SPREAD, [arrived(i * 900, 1024 + i) for i in range(5)]),
        (Sent(ids_at_least=5), SPREAD, [arrived(i, 1024 + 7001 * i) for i in range(5)]),
        (Sent(client_ids_at_most=0), [arrived(1, 1)], [arrived(0x1234, 1)]),
        (Sent(mixed_case=True), [arrived(1, 1, NAME.replace(b"w", b"W", 1))], [arrived(1, 1)]),
    ],
    ids=["count", "most", "least", "never", "tcp", "ports", "ids", "client-ids", "case"],
)
def test_what_reached_the_upstream(sent: Sent, good: list[Arrived], bad: list[Arrived]) -> None:
    for seen, expected in ((good, Outcome.HOLDS), (bad, Outcome.FAILS)):
        one = asked(Reply(), reply())
        assert judge(Scenario("t", 1, "r", sent=sent), Observed(ZONE, [one], seen), PEER).outcome is expected


ONE, TWO = b"\xc0\0\2\1", b"\xc0\0\2\2"


@pytest.mark.parametrize(
    "bound",
    [
        Bound(to={"www": ("192.0.2.1",)}),
        Bound(to={"www": ()}),
        Bound(never=("192.0.2.2",)),
        Bound(at_most=1),
        Bound(flows=(FlowCheck("192.0.2.2", "deny"),)),
    ],
    ids=["more", "none", "never", "count", "flow"],
)
def test_what_is_bound(bound: Bound) -> None:
    probe = Probe({"www.z.example": frozenset({ONE, TWO})}, frozenset({ONE, TWO}), 2, ["allow"] * len(bound.flows))
    scenario = Scenario("t", 1, "r", bound=bound)
    assert judge(scenario, Observed(ZONE, [], [], probe), OWES_ALL).outcome is Outcome.FAILS
    assert judge(scenario, Observed(ZONE, [], [], None), PEER).outcome is Outcome.HOLDS


def test_bound_as_expected() -> None:
    bound = Bound(
        to={"www": ("192.0.2.1",), "other": ()},
        never=("192.0.2.2",),
        at_most=1,
        flows=(FlowCheck("192.0.2.1", "allow"),),
    )
    probe = Probe({"www.z.example": frozenset({ONE})}, frozenset({ONE}), 1, ["allow"])
    assert judge(Scenario("t", 1, "r", bound=bound), Observed(ZONE, [], [], probe), OWES_ALL).outcome is Outcome.HOLDS


def test_a_target_is_exempt_from_what_it_knows_nothing_of() -> None:
    scenario = Scenario("t", 1, "r", needs=("bindings",))
    assert PEER.exempt(scenario)
    assert not Standard(frozenset({"policy", "bindings"})).exempt(scenario)
