"""A guard's report: what it says of a tally, its bounds, and that only the key's holder can have written it."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsfw.journal.lifecycle import Gap
from dnsfw.journal.records import Entry
from dnsfw.journal.report import Denied, Facts, Reached, Report, report, schema
from dnsfw.journal.signing import StatementError, public_key, sign, verify
from dnsfw.journal.tally import Tally
from policy import Action, Decision, Flow, Owner, Query, Reason

LOOPBACK = ip_address("127.0.0.1")
CLIENT = Flow(17, LOOPBACK, 40_000, LOOPBACK, 53053)
NPM = Owner(4711, 1, 1000, "/usr/bin/node", ("node", "postinstall.js"), "/job", step="install", action="")
FACTS = Facts("enforce", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "0" * 64, (Gap("SIGKILL", 0.4, closed=True),))
DENIED = Decision(Action.DENY, Reason.NO_RULE, None, None)
SEED, OTHER_SEED = bytes(range(32)), bytes(32)


def flow(dst: str) -> Flow:
    return Flow(6, ip_address("198.18.0.2"), 1, ip_address(dst), 443)


def allowed(dst: str, name: str | None) -> Entry:
    return Entry(flow(dst), Decision(Action.ALLOW, Reason.ALLOW_RULE, None, name), NPM, (name,) if name else ())


def told(*entries: Entry) -> Report:
    tally = Tally()
    for entry in entries:
        tally.take(entry)
    return report(tally, FACTS)


def test_it_says_who_was_denied_what_in_which_step_and_how_to_allow_it() -> None:
    said = told(*[Entry(Query("evil.test", 1, CLIENT), DENIED, NPM, ())] * 2)
    process = "/usr/bin/node postinstall.js (pid 4711)"
    row = Denied("resolve evil.test", "no rule names it", "no-rule", process, "install", "", "evil.test", 2)
    assert said.denials == (row,)
    assert (said.allowed, said.denied, said.policy, said.gaps) == (0, 2, "0" * 64, FACTS.gaps)


def test_an_unknown_process_has_no_step() -> None:
    (row,) = told(Entry(Query("evil.test", 1, CLIENT), DENIED, None, ())).denials
    assert (row.process, row.step, row.action) == ("an unknown process", "", "")


def test_allowed_flows_are_counted_by_host_the_most_frequent_first() -> None:
    query = Entry(Query("a.example", 1, CLIENT), Decision(Action.ALLOW, Reason.ALLOW_RULE, None, "a.example"), NPM, ())
    said = told(query, allowed("192.0.2.1", "a.example"), *[allowed("192.0.2.2", None)] * 2)
    assert said.reached == (Reached("192.0.2.2", 2), Reached("a.example", 1))
    assert said.allowed == 4


def test_rows_are_bounded_and_counts_are_not() -> None:
    entries = [Entry(Query(f"{number}.evil.test", 1, CLIENT), DENIED, None, ()) for number in range(300)]
    said = told(*entries, *[allowed(f"192.0.{high}.{low}", None) for high in range(3) for low in range(100)])
    assert (len(said.denials), said.denied, len(said.reached), said.allowed) == (200, 300, 200, 300)


def test_a_signed_report_comes_back_whole() -> None:
    said = told(allowed("192.0.2.1", "a.example"))
    assert verify(sign(said, SEED), public_key(SEED)) == said


@pytest.mark.parametrize("key", [public_key(OTHER_SEED), b"", bytes(32)], ids=["another's", "empty", "zeros"])
def test_only_its_own_key_vouches_for_it(key: bytes) -> None:
    with pytest.raises(StatementError, match="not signed with that key"):
        verify(sign(told(), SEED), key)


def test_a_report_that_was_changed_is_not_vouched_for() -> None:
    statement = json.loads(sign(told(Entry(Query("evil.test", 1, CLIENT), DENIED, None, ())), SEED))
    innocent = msgspec.json.decode(statement["report"], type=Report)
    statement["report"] = msgspec.json.encode(msgspec.structs.replace(innocent, denied=0)).decode()
    with pytest.raises(StatementError):
        verify(json.dumps(statement).encode(), public_key(SEED))


def test_the_published_schema_is_current() -> None:
    """`make schema` writes it."""
    published = Path(__file__).parents[2] / "docs" / "report.schema.json"
    assert published.read_text(encoding="utf-8") == schema()


@given(st.binary())
def test_garbage_is_no_statement(raw: bytes) -> None:
    with pytest.raises(StatementError):
        verify(raw, public_key(SEED))


def test_the_signature_is_over_the_very_bytes() -> None:
    """So that any Ed25519 verifier can check it with no knowledge of ours."""
    statement = json.loads(sign(told(), SEED))
    assert json.loads(statement["report"])["v"] == 1
    assert FACTS.policy in statement["report"]
