"""The gate keeps budgets: refusals are decided, journalled with their numbers and told once a rule."""

from __future__ import annotations

import pytest

from dnsfw.engine.gate import Gate
from dnsfw.journal.records import Entry, to_record
from dnsfw.journal.tally import Tally, summary
from policy import Action, Bindings, Budgets, Flow, Limits, Proto, Query, Reason, address
from policy.parse import parse

CLIENT = Flow(Proto.UDP, address("198.18.0.2"), 40000, address("127.0.0.1"), 53053)
NULL, TXT = 10, 16


def gate(entries: list[Entry], *, audit: bool = False) -> Gate:
    budgets = Budgets(Limits(2, 100, 2, 100))
    return Gate(parse("*.cdn.example\n", "p"), Bindings(), lambda _: None, entries.append, lambda: 0.0, audit, budgets)


@pytest.mark.parametrize("audit", [False, True])
def test_a_spent_budget_denies_and_the_journal_has_the_numbers(audit: bool) -> None:
    entries: list[Entry] = []
    judge = gate(entries, audit=audit)
    actions = [judge.query(Query(f"n{number}.cdn.example", 1, CLIENT)).action for number in (0, 1, 2, 0)]
    assert actions == [Action.ALLOW, Action.ALLOW, Action.ALLOW if audit else Action.DENY, Action.ALLOW]
    assert [entry.decision.reason for entry in entries].count(Reason.BUDGET) == 1
    record = to_record(entries[2], 0.0, "enforce")
    assert record.reason == "budget"
    assert record.spent is not None
    assert (record.spent.names_minute, record.spent.octets_job) == (3, 9)
    assert to_record(entries[3], 0.0, "enforce").spent is None


@pytest.mark.parametrize(
    ("name", "qtype", "repeatable"),
    [
        pytest.param("n0.cdn.example", 1, True, id="paid-for"),
        pytest.param("n0.cdn.example", TXT, False, id="paid-for-each-time"),
        pytest.param("n1.cdn.example", 1, False, id="new"),
        pytest.param("n1.cdn.example", NULL, True, id="its-type-is-never-allowed"),
        pytest.param("evil.test", 1, True, id="no-rule"),
    ],
)
def test_only_what_costs_nothing_again_may_be_repeated(name: str, qtype: int, repeatable: bool) -> None:
    entries: list[Entry] = []
    judge = gate(entries)
    judge.query(Query("n0.cdn.example", 1, CLIENT))
    ruling = judge.resolve(Query(name, qtype, CLIENT), None)
    assert (ruling.again is not None) is repeatable
    if ruling.again is not None:
        ruling.again(5)
        assert entries[-1] == entries[-2].but(times=5)
        assert to_record(entries[-1], 0.0, "enforce").times == 5


def test_the_budget_s_end_may_not_be_repeated() -> None:
    judge = gate([])
    for number in range(2):
        judge.query(Query(f"n{number}.cdn.example", 1, CLIENT))
    ruling = judge.resolve(Query("n2.cdn.example", 1, CLIENT), None)
    assert (ruling.decision.reason, ruling.again) == (Reason.BUDGET, None), "the next minute has another budget"


def test_the_tally_counts_repetitions() -> None:
    entries: list[Entry] = []
    judge = gate(entries)
    for name in ("n0.cdn.example", "evil.test"):
        for _ in range(2):
            ruling = judge.resolve(Query(name, 1, CLIENT), None)
        assert ruling.again is not None
        ruling.again(5)
    tally = Tally()
    for entry in entries:
        tally.take(entry)
    assert (tally.allowed, tally.denied, [denial.count for denial in tally.denials.values()]) == (7, 7, [7])


def test_the_summary_tells_a_tunnel_once_and_suggests_no_line_for_it() -> None:
    tally = Tally()
    entries: list[Entry] = []
    judge = gate(entries)
    for number in range(50):
        judge.query(Query(f"n{number}.cdn.example", 1, CLIENT))
    judge.query(Query("n0.cdn.example", NULL, CLIENT))
    for entry in entries:
        tally.take(entry)
    text = summary(tally, [], audit=False)
    assert "×48" in text
    assert "under one wildcard: *.cdn.example (p:1)" in text
    assert "no program needs this DNS type" in text
    assert "to allow it" not in text
