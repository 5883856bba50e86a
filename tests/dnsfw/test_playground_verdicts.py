"""The demo's judge, its book and its zone, without a kernel."""

from __future__ import annotations

import io
import json

import pytest
from dnslib import DNSRecord
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dnsfw.playground import atlas, zone
from dnsfw.playground.arrival import MAX_ARRIVALS, MAX_PAYLOAD, Arrival, Book
from dnsfw.playground.package.build import NEEDS
from dnsfw.playground.package.catalogue import WAYS
from dnsfw.playground.package.way import Way
from dnsfw.playground.rounds import Attempt, Round
from dnsfw.playground.table import render
from dnsfw.playground.verdicts import Report, Verdict, judge_need, judge_way, report, to_json

ARRIVED = Attempt(("frame",), "", 0.001)
ARRIVED_UNANSWERED = Attempt(("frame",), "timed out", 1.5)
REFUSED = Attempt((), "ECONNREFUSED", 0.001)
CLAIMS_SUCCESS = Attempt((), "", 0.001)


def way(open_because: str = "") -> Way:
    return Way("id", "title", (1,), print, open_because)


@pytest.mark.parametrize(
    ("open_because", "unguarded", "guarded", "verdict"),
    [
        pytest.param("", ARRIVED, REFUSED, Verdict.CLOSED, id="arrived only unguarded"),
        pytest.param("", ARRIVED, CLAIMS_SUCCESS, Verdict.CLOSED, id="the program's claim counts for nothing"),
        pytest.param("", ARRIVED, ARRIVED, Verdict.OPEN, id="arrived in both"),
        pytest.param("", ARRIVED, ARRIVED_UNANSWERED, Verdict.OPEN, id="arrived though the program saw an error"),
        pytest.param("", REFUSED, ARRIVED, Verdict.OPEN, id="arrived only guarded"),
        pytest.param("", REFUSED, REFUSED, Verdict.NO_WAY, id="arrived in neither"),
        pytest.param("later", ARRIVED, ARRIVED, Verdict.KNOWN_OPEN, id="known to be open"),
        pytest.param("later", ARRIVED, REFUSED, Verdict.CLOSED, id="known to be open, and is not"),
    ],
)
def test_a_way_is_judged_by_what_arrived(
    open_because: str, unguarded: Attempt, guarded: Attempt, verdict: Verdict
) -> None:
    assert judge_way(way(open_because), unguarded, guarded) is verdict


@pytest.mark.parametrize(
    ("unguarded", "guarded", "verdict"),
    [
        pytest.param(ARRIVED, ARRIVED, Verdict.WORKS, id="both"),
        pytest.param(ARRIVED, REFUSED, Verdict.BROKEN, id="refused when guarded"),
        pytest.param(ARRIVED, ARRIVED_UNANSWERED, Verdict.BROKEN, id="no answer when guarded"),
        pytest.param(ARRIVED, CLAIMS_SUCCESS, Verdict.BROKEN, id="claims success, and nothing arrived"),
        pytest.param(REFUSED, ARRIVED, Verdict.BROKEN, id="did not work before either"),
    ],
)
def test_a_need_is_met_if_the_site_was_reached_and_answered(
    unguarded: Attempt, guarded: Attempt, verdict: Verdict
) -> None:
    assert judge_need(way(), unguarded, guarded) is verdict


def round_of(**exceptions: Attempt) -> Round:
    """All refused but the build, and but `exceptions` by way (dashes as underscores)."""
    attempts = {one.id: REFUSED for one in WAYS} | {need.id: ARRIVED for need in NEEDS}
    return Round(attempts | {name.replace("_", "-"): attempt for name, attempt in exceptions.items()}, "")


def everything_arrived() -> Round:
    return Round({one.id: ARRIVED for one in (*NEEDS, *WAYS)}, "")


def judged(**exceptions: Attempt) -> Report:
    return report(everything_arrived(), round_of(**exceptions))


@pytest.mark.parametrize(
    ("found", "good"),
    [
        pytest.param(judged(), True, id="all closed"),
        pytest.param(judged(tcp4=ARRIVED), False, id="one open"),
        pytest.param(judged(helper_path=ARRIVED), True, id="one open and known"),
        pytest.param(judged(build_allowed6=REFUSED), False, id="the build broken"),
    ],
)
def test_the_demo_succeeds_if_nothing_unexpected_got_through_and_the_build_works(found: Report, good: bool) -> None:
    assert found.good is good
    assert to_json(found)["good"] is good


def test_json_has_every_way_and_survives_a_round_trip() -> None:
    raw = to_json(judged(tcp4=ARRIVED))
    assert json.loads(json.dumps(raw)) == raw
    assert [one["id"] for one in raw["ways"]] == [one.id for one in WAYS]
    (tcp4,) = [one for one in raw["ways"] if one["id"] == "tcp4"]
    assert (tcp4["verdict"], tcp4["guarded"]["arrived"], tcp4["attacks"]) == ("open", ["frame"], [22])


def shown(found: Report, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(render(found))
    return console.export_text().splitlines()


def test_the_table_has_a_line_for_each_way_at_80_columns() -> None:
    lines = shown(judged(tcp4=ARRIVED, helper_path=ARRIVED, build_allowed4=REFUSED), 80)
    for one in WAYS:
        (line,) = [text for text in lines if text.startswith(f" {one.title}  ")]
        expected = {"tcp4": "OPEN", "helper-path": "open*"}.get(one.id, "closed")
        assert line.removeprefix(f" {one.title}").split()[:2] == ["through", expected]
    assert "BROKEN" in next(text for text in lines if NEEDS[0].title in text)
    assert any(text.startswith("* an unknown helper") for text in lines)
    assert "1 got through unexpectedly, 1 as known. THE HONEST BUILD IS BROKEN." in " ".join(" ".join(lines).split())


def test_ways_are_told_apart() -> None:
    ids = [one.id for one in (*NEEDS, *WAYS)]
    assert len(ids) == len(set(ids))
    assert all(one.attacks for one in WAYS)


TOKEN = "00ff10ab00ff10ab"


@pytest.mark.parametrize(
    ("payload", "carried"),
    [
        pytest.param(b"..00ff10ab00ff10ab..", True, id="spelled out"),
        pytest.param(b"..00Ff10aB00fF10Ab..", True, id="spelled in any case, as 0x20 does"),
        pytest.param(b"..\x00\xff\x10\xab\x00\xff\x10\xab..", True, id="as raw bytes, as in an address"),
        pytest.param(b"..00ff10ab00ff10a", False, id="not whole"),
        pytest.param(b"", False, id="nothing"),
    ],
)
def test_an_arrival_carries_a_token(payload: bytes, carried: bool) -> None:
    arrival = Arrival("udp", ("192.0.2.1", 1), ("192.0.2.2", 2), payload)
    assert arrival.carries(TOKEN) is carried
    assert Arrival.from_json(json.loads(json.dumps(arrival.to_json()))) == arrival


def test_the_book_is_bounded_and_counts_what_it_forgot() -> None:
    calls: list[None] = []
    book = Book(lambda: calls.append(None))
    for _ in range(MAX_ARRIVALS + 3):
        book.record("udp", ("", 0), ("", 0), bytes(MAX_PAYLOAD + 1))
    assert (len(calls), book.forgotten, len(book.with_token(None))) == (MAX_ARRIVALS + 3, 3, MAX_ARRIVALS)
    assert {len(arrival.payload) for arrival in book.with_token(None)} == {MAX_PAYLOAD}
    book.clear()
    assert (book.forgotten, book.with_token(None)) == (0, [])


@pytest.mark.parametrize(
    ("name", "qtype", "addresses"),
    [
        (atlas.ALLOWED_NAME, "A", [atlas.ALLOWED.v4]),
        (atlas.ALLOWED_NAME, "AAAA", [atlas.ALLOWED.v6]),
        ("ALLOWED.Example", "A", [atlas.ALLOWED.v4]),
        (atlas.ALIAS_NAME, "A", [f"{atlas.ALLOWED_NAME}.", atlas.ALLOWED.v4]),
        (f"a.b.{atlas.WILDCARD_ZONE}", "A", [atlas.SHARED.v4]),
        (atlas.EVIL_SHARED_NAME, "AAAA", [atlas.SHARED.v6]),
        (f"x.{atlas.EVIL_ZONE}", "A", [atlas.EVIL.v4]),
    ],
)
def test_the_zone_answers(name: str, qtype: str, addresses: list[str]) -> None:
    reply = zone.answer(DNSRecord.question(name, qtype).pack(), stream=False)
    assert reply is not None
    assert [str(record.rdata) for record in DNSRecord.parse(reply).rr] == addresses


@pytest.mark.parametrize(("name", "rcode"), [("unknown.example", 3), (atlas.ALLOWED_NAME, 0)])
def test_the_zone_says_no(name: str, rcode: int) -> None:
    reply = DNSRecord.parse(zone.answer(DNSRecord.question(name, "MX").pack(), stream=False) or b"")
    assert (reply.header.rcode, reply.rr, len(reply.auth)) == (rcode, [], 1)


@given(st.binary(max_size=600))
def test_the_zone_survives_garbage(garbage: bytes) -> None:
    reply = zone.answer(garbage, stream=False)
    assert reply is None or len(reply) <= len(garbage) + 1300
