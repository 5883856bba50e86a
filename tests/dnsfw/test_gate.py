"""The gate: what it attaches, records and answers, in both modes, and when something breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsfw.engine.gate import Gate
from dnsfw.journal.records import Entry, SeenRecord, to_record
from dnsfw.journal.tally import Tally
from dnsfw.journal.writer import Journal, Keeping
from dnsfw.machine.privilege import ROOT
from policy import Action, Bindings, Decision, Flow, Owner, Proto, Query, Reason, Seen, Spoken, address, decide
from policy.parse import parse

CLIENT = address("198.18.0.2")
GOOD, EVIL = address("198.51.100.80"), address("203.0.113.66")
OWNER = Owner(pid=7, start_time=70, uid=1000, exe="/usr/bin/git", argv=("git", "push"), cgroup="/job")
NOW = 1000.0


def gate(
    entries: list[Entry], *, audit: bool = False, owner_of: Callable[[Flow], Owner | None] = lambda _: OWNER
) -> Gate:
    policy = parse("allowed.example exe=/usr/bin/git\n", "p")
    return Gate(policy, Bindings(), owner_of, entries.append, lambda: NOW, audit)


def flow(dst: str, port: int = 443) -> Flow:
    return Flow(Proto.TCP, CLIENT, 40000, address(dst), port)


def query(name: str) -> Query:
    return Query(name, 1, Flow(Proto.UDP, CLIENT, 40000, address("127.0.0.1"), 53053))


def test_a_flow_is_judged_by_the_names_bound_to_its_destination_and_its_owner() -> None:
    entries: list[Entry] = []
    judge = gate(entries)
    assert judge.open(flow(str(GOOD)))[0] is Action.DENY
    judge.bindings.bind("allowed.example", [(GOOD, 60.0)], NOW)
    assert judge.open(flow(str(GOOD)))[0] is Action.PEEK
    assert [entry.names for entry in entries] == [(), ("allowed.example",)]
    assert entries[-1].owner is OWNER
    assert judge.query(query("allowed.example")).action is Action.ALLOW


RULES = "allowed.example exe=/usr/bin/git\n198.51.100.0/24:80 user=1001\nother.example:443/udp\n!203.0.113.66:22\n"
FLOWS = st.builds(
    Flow,
    st.sampled_from([Proto.TCP, Proto.UDP]),
    st.builds(address, st.sampled_from(["198.18.0.2", "192.0.2.7"])),
    st.integers(1, 3),
    st.sampled_from([GOOD, EVIL]),  # the same objects, as of packets
    st.sampled_from([22, 80, 443]),
)
OWNERS = st.sampled_from([None, OWNER, replace(OWNER, uid=1001), replace(OWNER, exe="/bin/nc")])
NAMES = st.sampled_from([(), ("allowed.example",), ("other.example",), ("allowed.example", "other.example")])


@given(st.lists(st.tuples(FLOWS, OWNERS, NAMES, st.integers(0, 9)), min_size=20, max_size=40))
def test_what_is_remembered_of_places_is_what_policy_says(
    opened: list[tuple[Flow, Owner | None, tuple[str, ...], int]],
) -> None:
    entries: list[Entry] = []
    now, owner = NOW, None
    judge = Gate(parse(RULES, "p"), Bindings(), lambda _: owner, entries.append, lambda: now)
    for one, owner, names, changed in opened:
        now += 1000  # what was bound, and what a UDP flow was let through as, has run out
        for name in names:
            judge.bindings.bind(name, [(one.dst, 60.0)], now)
        if changed == 0:
            judge.adopt(parse("" if judge.policy.rules else RULES, "p"))
        expected = decide(judge.policy, one, owner, names, peek=True).action
        assert judge.open(one)[0] is expected
    assert all(entry.decision.action is not Action.PEEK or entry.names for entry in entries)


def test_an_unknown_owner_satisfies_no_attribute() -> None:
    assert gate([], owner_of=lambda _: None).query(query("allowed.example")).reason is Reason.OWNER


@pytest.mark.parametrize(
    ("name", "awaits", "audit", "silent"),
    [
        pytest.param("allowed.example", True, False, True, id="an-answer-is-on-its-way"),
        pytest.param("allowed.example", False, False, False, id="none-is"),
        pytest.param("evil.example", True, False, False, id="no-answer-could-change-it"),
        pytest.param("allowed.example", True, True, False, id="audit"),
    ],
)
def test_a_denial_is_not_told_while_more_will_be_known(name: str, awaits: bool, audit: bool, silent: bool) -> None:
    entries: list[Entry] = []
    judge = replace(gate(entries, audit=audit), awaits=lambda _: awaits)
    other = Owner(8, 80, 0, "/bin/app", ("app",), "/docker/x", container="x")
    assert judge.resolve(query(name), other).silent is silent
    assert [entry.decision.action for entry in entries] == [Action.DENY]


def test_audit_lets_through_and_records_what_enforcing_would_have_said() -> None:
    entries: list[Entry] = []
    judge = gate(entries, audit=True)
    assert judge.open(flow(str(EVIL)))[0] is Action.ALLOW
    assert judge.query(query("evil.test")).action is Action.ALLOW
    assert [entry.decision.action for entry in entries] == [Action.DENY, Action.DENY]


@pytest.mark.parametrize(
    ("proxy", "audit", "action", "recorded"),
    [
        pytest.param(True, False, Action.INSPECT, (Action.INSPECT, Reason.ALLOW_RULE), id="at work"),
        pytest.param(False, False, Action.DENY, (Action.DENY, Reason.PROXY), id="not there"),
        pytest.param(False, True, Action.ALLOW, (Action.DENY, Reason.PROXY), id="not there, in audit mode"),
    ],
)
def test_what_the_proxy_would_look_into_is_denied_while_it_is_not_there(
    *, proxy: bool, audit: bool, action: Action, recorded: tuple[Action, Reason]
) -> None:
    entries: list[Entry] = []
    policy = parse("https://allowed.example/open/*\n", "p")
    judge = Gate(policy, Bindings(), lambda _: OWNER, entries.append, lambda: NOW, audit, inspects=lambda: proxy)
    judge.bindings.bind("allowed.example", [(GOOD, 60.0)], NOW)
    assert judge.open(flow(str(GOOD)))[0] is action
    assert [(entry.decision.action, entry.decision.reason) for entry in entries] == [recorded]


def test_every_decision_is_recorded_once() -> None:
    entries: list[Entry] = []
    judge = gate(entries)
    for name in ("allowed.example", "evil.test", "allowed.example"):
        judge.query(query(name))
    assert len(entries) == 3


def test_what_breaks_outside_any_subject_is_recorded_too() -> None:
    """R7: an event loop's callback that raises ends in the journal, not in silence."""
    entries: list[Entry] = []

    async def broken() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(gate(entries).escaped)
        loop.call_soon(lambda: 1 // 0)
        await asyncio.sleep(0)

    asyncio.run(broken())
    assert [(entry.decision.reason, entry.fault) for entry in entries] == [
        (Reason.FAULT, "ZeroDivisionError: integer division or modulo by zero")
    ]


def test_one_representation_of_an_address_from_binding_to_journal() -> None:
    """L1: an IPv4-mapped destination is the IPv4 address, in the binding, in the judgement and on paper."""
    entries: list[Entry] = []
    judge = gate(entries)
    judge.bindings.bind("allowed.example", [(address(IPv6Address(f"::ffff:{GOOD}").packed), 60.0)], NOW)
    assert judge.open(flow(f"::ffff:{GOOD}"))[0] is Action.PEEK
    assert to_record(entries[0], 0.0, "enforce").subject.dst == str(GOOD)


def test_the_tally_is_bounded_and_loses_no_count() -> None:
    """R5."""
    tally = Tally()
    denied = Decision(Action.DENY, Reason.NO_RULE, None, None)
    for number in range(5_000):
        tally.take(Entry(query(f"{number}.evil.test"), denied, None, ()))
    assert tally.denied == 5_000
    assert len(tally.denials) == 1_000


def test_a_record_is_json_of_the_published_shape(tmp_path: Path) -> None:
    """A5."""
    file = tmp_path / "journal"
    journal = Journal(file, "enforce", ROOT, Keeping(clock=lambda: 0.5))
    gate_entries: list[Entry] = []
    judge = gate(gate_entries)
    judge.open(flow(str(EVIL), 4444))
    for entry in gate_entries:
        journal.record(entry)
    journal.start()
    journal.close()
    (line,) = file.read_text().splitlines()
    assert json.loads(line) == {
        "v": 1,
        "time": "1970-01-01T00:00:00.500000Z",
        "mode": "enforce",
        "subject": {"kind": "flow", "proto": 6, "src": str(CLIENT), "sport": 40000, "dst": str(EVIL), "dport": 4444},
        "decision": "deny",
        "reason": "no-binding",
        "rule": None,
        "owner": {
            "pid": 7,
            "start_time": 70,
            "uid": 1000,
            "exe": "/usr/bin/git",
            "argv": ["git", "push"],
            "cgroup": "/job",
        },
        "names": [],
        "fault": None,
        "spent": None,
        "times": 1,
        "until": None,
        "seen": None,
    }
    assert journal.lost == 0


@pytest.mark.parametrize("backlog", [1, 70_000])
def test_a_journal_that_nobody_writes_counts_what_it_loses(tmp_path: Path, backlog: int) -> None:
    """R5: bounded, counted, and never waited for. The writer is not started: the slowest disk there is."""
    journal = Journal(tmp_path / "journal", "enforce", ROOT)
    entry = Entry(query("evil.test"), Decision(Action.DENY, Reason.NO_RULE, None, None), None, ())
    for _ in range(backlog):
        journal.record(entry)
    journal.close()
    assert journal.lost == backlog


def test_a_flow_s_client_is_judged_by_the_names_of_its_beginning_and_those_since() -> None:
    entries: list[Entry] = []
    policy = parse("allowed.example\nlater.example\n", "p")
    now = [NOW]
    judge = Gate(policy, Bindings(), lambda _: OWNER, entries.append, lambda: now[0])
    judge.bindings.bind("allowed.example", [(GOOD, 60.0)], NOW)
    action, connection = judge.open(flow(str(GOOD)))
    assert action is Action.PEEK
    now[0] += 61.0  # the binding is gone; the connection is not new
    assert judge.named(connection, Seen(Spoken.TLS, "allowed.example")) is Action.ALLOW
    assert judge.named(connection, Seen(Spoken.TLS, "later.example")) is Action.DENY
    assert entries[-1].decision.reason is Reason.NAME
    judge.bindings.bind("later.example", [(GOOD, 60.0)], now[0])
    assert judge.hinted(connection, Seen(Spoken.TLS, "later.example"))
    assert judge.named(connection, Seen(Spoken.TLS, "later.example")) is Action.ALLOW
    assert [entry.decision.action for entry in entries] == [Action.PEEK, Action.ALLOW, Action.DENY, Action.ALLOW]


def test_audit_lets_a_client_say_what_it_likes() -> None:
    entries: list[Entry] = []
    judge = gate(entries, audit=True)
    judge.bindings.bind("allowed.example", [(GOOD, 60.0)], NOW)
    _, connection = judge.open(flow(str(GOOD)))
    assert judge.named(connection, Seen(Spoken.TLS, "evil.test")) is Action.ALLOW
    assert judge.unread(connection, "two Host fields") is Action.ALLOW
    assert [entry.decision.reason for entry in entries[1:]] == [Reason.NO_RULE, Reason.MALFORMED]
    assert to_record(entries[1], 0.0, "audit").seen == SeenRecord("tls", "evil.test")
