"""Budgets: what a tunnel can say through a wildcard, and that a build never meets them."""

from __future__ import annotations

from base64 import b32encode
from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import Action, Budgets, Decision, Flow, Limits, Policy, Proto, Query, Reason, Spent, decide
from policy.budget import entropy
from policy.parse import parse

A, NULL, HINFO, TXT, AAAA, ANY, PRIVATE_USE = 1, 10, 13, 16, 28, 255, 65280
CLIENT = Flow(Proto.UDP, ip_address("192.0.2.1"), 40000, ip_address("127.0.0.1"), 53)
POLICY = parse("*.cdn.example\nshard*.example.net\nexact.example.com\n!evil.cdn.example\n", "p")
TIGHT = Limits(names_a_minute=3, octets_a_minute=30, names_a_job=5, octets_a_job=60)


def ask(budgets: Budgets, name: str, now: float = 0.0, qtype: int = A, policy: Policy = POLICY) -> Decision:
    return hold(budgets, name, now, qtype, policy)[0]


def hold(
    budgets: Budgets, name: str, now: float = 0.0, qtype: int = A, policy: Policy = POLICY
) -> tuple[Decision, Spent | None]:
    query = Query(name, qtype, CLIENT)
    return budgets.hold(query, decide(policy, query, None, ()), now)


@pytest.mark.parametrize(
    ("qtype", "action"),
    [(A, Action.ALLOW), (AAAA, Action.ALLOW), (ANY, Action.ALLOW), (TXT, Action.ALLOW)]
    + [(qtype, Action.DENY) for qtype in (NULL, HINFO, PRIVATE_USE, 0, 3, 65535)],
)
def test_only_types_that_programs_use_may_be_asked(qtype: int, action: Action) -> None:
    for name in ("exact.example.com", "a.cdn.example"):
        decision = ask(Budgets(), name, qtype=qtype)
        assert decision.action is action
        assert (decision.reason is Reason.TYPE) == (action is Action.DENY)


def test_what_policy_denies_stays_denied_for_its_own_reason_and_costs_nothing() -> None:
    budgets = Budgets(TIGHT)
    for number in range(10):
        assert ask(budgets, f"n{number}.elsewhere.example", qtype=NULL).reason is Reason.NO_RULE
        assert ask(budgets, "evil.cdn.example").reason is Reason.DENY_RULE
    assert ask(budgets, "a.cdn.example").action is Action.ALLOW


def test_new_names_of_a_minute_are_counted_known_ones_are_free() -> None:
    budgets = Budgets(TIGHT)
    answers = [ask(budgets, f"n{number}.cdn.example", now=number) for number in range(5)]
    assert [each.action is Action.ALLOW for each in answers] == [True, True, True, False, False]
    assert answers[3].reason is Reason.BUDGET
    assert str(answers[3].rule.source if answers[3].rule else "") == "p:1"
    assert all(ask(budgets, "n0.cdn.example", now=5).action is Action.ALLOW for _ in range(100))
    assert ask(budgets, "n4.cdn.example", now=60.0).action is Action.ALLOW


def test_octets_count_as_names_do() -> None:
    budgets = Budgets(TIGHT)
    assert ask(budgets, f"{'a' * 20}.cdn.example").action is Action.ALLOW
    assert ask(budgets, f"{'b' * 20}.cdn.example").reason is Reason.BUDGET
    assert ask(budgets, "b.cdn.example").action is Action.ALLOW


def test_a_job_has_an_end() -> None:
    budgets = Budgets(TIGHT)
    answers = [ask(budgets, f"n{number}.cdn.example", now=60.0 * number) for number in range(10)]
    assert [each.action is Action.ALLOW for each in answers] == [True] * 5 + [False] * 5


def test_txt_is_paid_for_each_time() -> None:
    budgets = Budgets(TIGHT)
    answers = [ask(budgets, "one.cdn.example", qtype=TXT) for _ in range(4)]
    assert [each.action is Action.ALLOW for each in answers] == [True, True, True, False]


def test_each_wildcard_has_its_own_account_whatever_its_rules() -> None:
    budgets = Budgets(TIGHT)
    two = parse("*.cdn.example:443\n*.cdn.example:80\nshard*.example.net\n", "p")
    for number in range(4):
        ask(budgets, f"n{number}.cdn.example", policy=two)
    assert ask(budgets, "n9.cdn.example").reason is Reason.BUDGET  # another policy, the same wildcard
    shards = [ask(budgets, f"shard{number}.example.net", policy=two) for number in range(4)]
    assert [each.action is Action.ALLOW for each in shards] == [True, True, True, False]


def test_names_that_policy_spells_out_are_not_counted() -> None:
    budgets = Budgets(Limits(0, 0, 0, 0))
    assert hold(budgets, "exact.example.com") == (ask(Budgets(), "exact.example.com"), None)
    assert ask(budgets, "a.cdn.example").reason is Reason.BUDGET


def test_the_numbers_are_told_with_the_refusal_that_they_are_for() -> None:
    budgets = Budgets(TIGHT)
    assert hold(budgets, "a.cdn.example")[1] == Spent(1, 2, 1, 2, "a.")
    assert hold(budgets, "a.cdn.example")[1] is None
    decision, spent = hold(budgets, f"{'c' * 30}.cdn.example", now=61.0)
    assert decision.reason is Reason.BUDGET
    assert spent is not None
    assert (spent.names_minute, spent.octets_minute, spent.names_job, spent.octets_job) == (1, 31, 2, 33)


def test_what_a_build_asks_for_fits_the_defaults_a_tunnel_does_not() -> None:
    budgets, chance = Budgets(), Random(5)
    shards = [f"{kind}{n}.cdn.example" for kind in ("productionresultssa", "docker-images-prod.") for n in range(40)]
    assert all(ask(budgets, name, now=number / 10).action is Action.ALLOW for number, name in enumerate(shards))
    sent = 0
    for second in range(600):
        label = b32encode(chance.randbytes(35)).decode().lower().rstrip("=")
        sent += ask(budgets, f"{label}.cdn.example", now=100.0 + second).action is Action.ALLOW
    assert sent * 35 <= 16_384  # octets in ten minutes that would otherwise have carried 21,000


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=9), st.floats(0, 40), st.sampled_from([A, TXT]))))
def test_no_order_of_questions_spends_more_than_there_is(steps: list[tuple[str, float, int]]) -> None:
    budgets, now = Budgets(TIGHT), 0.0
    paid: list[tuple[float, int]] = []
    for label, pause, qtype in steps:
        now += pause
        decision, spent = hold(budgets, f"{label}.cdn.example", now, qtype)
        assert (decision.action is Action.ALLOW) == (decision.reason is Reason.ALLOW_RULE)
        if spent is not None and decision.action is Action.ALLOW:
            paid.append((now, len(label) + 1))
    assert len(paid) <= TIGHT.names_a_job
    assert sum(size for _, size in paid) <= TIGHT.octets_a_job
    for start, _ in paid:  # two windows may touch in any minute
        assert sum(start <= at < start + 60 for at, _ in paid) <= 2 * TIGHT.names_a_minute


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("", 0, 0), ("aaaa", 0, 0), ("registry.", 2, 3.2), ("mzxw6ytboi5gk3tfojqxgyloebuxgidbebzgky3vojsq", 4, 5)],
)
def test_entropy_is_shannons(text: str, least: float, most: float) -> None:
    assert least <= entropy(text) <= most
