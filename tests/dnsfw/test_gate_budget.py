"""The gate keeps budgets: refusals are decided, journalled with their numbers and told once a rule."""

from __future__ import annotations

import pytest

from dnsfw.gate import Gate
from dnsfw.journal import Entry, to_record
from dnsfw.tally import Tally, summary
from policy import Action, Bindings, Budgets, Flow, Limits, Proto, Query, Reason, address
from policy.parse import parse

CLIENT = Flow(Proto.UDP, address("198.18.0.2"), 40000, address("127.0.0.1"), 53053)
NULL = 10


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
