"""What an engine knew, the next one knows, whenever the first one died."""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsfw.engine.gate import Gate
from dnsfw.engine.snapshot import Known, Snapshot
from dnsfw.journal.records import Entry
from dnsfw.journal.shared import LARGEST, SharedLog
from dnsfw.journal.tally import Tally
from policy import Action, Bindings, Budgets, Decision, Flow, Limits, Policy, Proto, Query, Reason, address
from policy.parse import parse

NOW = 1_000.0
V4, V6 = address("192.0.2.1"), address("2001:db8::1")


def snapshot(log: SharedLog, now: float = NOW) -> tuple[Snapshot, Bindings, Tally]:
    bindings, tally = Bindings(), Tally()
    return Snapshot(log, Known(bindings, tally, Budgets()), Policy(()), lambda: now), bindings, tally


def known(log: SharedLog, now: float = NOW) -> set[tuple[str, str, float]]:
    """What the next engine knows: its own copy of the log's state, as after a fork."""
    _, bindings, _ = snapshot(successor(log), now)
    return {(binding.name, str(binding.address), binding.expires_at) for binding in bindings.live(now)}


def successor(log: SharedLog) -> SharedLog:
    """The same memory, and none of the writer's mind."""
    new = SharedLog(log._area)
    new._memory[:] = log._memory[:]
    return new


def test_bindings_and_counts_outlive_their_engine() -> None:
    log = SharedLog()
    first, _, tally = snapshot(log)
    first.bind("allowed.example", [(V4, 60.0), (V6, 90.0)], NOW)
    first.bind("other.example", [(V4, 30.0)], NOW)
    tally.allowed, tally.denied, tally.faults = 5, 3, 1
    first.take(Entry(None, Decision(Action.DENY, Reason.FAULT, None, None), None, ()))
    assert known(log) == {
        ("allowed.example", "192.0.2.1", NOW + 60),
        ("allowed.example", "2001:db8::1", NOW + 90),
        ("other.example", "192.0.2.1", NOW + 30),
    }
    assert known(log, NOW + 60) == {("allowed.example", "2001:db8::1", NOW + 90)}
    _, _, counted = snapshot(successor(log))
    assert (counted.allowed, counted.denied, counted.faults) == (5, 3, 1)


def test_what_a_wildcard_has_cost_outlives_its_engine() -> None:
    """Or whoever can kill an engine could say more in names."""
    log, policy = SharedLog(), parse("*.cdn.example\n*.gone.example\n", "p")
    limits = Limits(names_a_job=3)
    allowed = []
    for life in range(3):
        budgets, tally, entries = Budgets(limits), Tally(), list[Entry]()
        kept = Snapshot(log, Known(Bindings(), tally, budgets), policy, lambda: NOW)
        gate = Gate(policy, Bindings(), lambda _: None, entries.append, lambda: NOW, budgets=budgets)
        for name in (f"a{life}.cdn.example", f"b{life}.cdn.example", f"c{life}.gone.example"):
            client = Flow(Proto.UDP, V4, 4000, V4, 53)
            allowed.append(gate.query(Query(name, 1, client)).action is Action.ALLOW)
            kept.take(entries[-1])
        log, policy = successor(log), parse("*.cdn.example\n", "p")  # which one is gone doesn't matter
    assert allowed == [True, True, True, True, False, False, False, False, False]


def test_what_three_engines_learned_one_after_the_other_is_known() -> None:
    log = SharedLog()
    for number in range(3):
        engine, _, _ = snapshot(log)
        engine.bind(f"n{number}.example", [(V4, 60.0)], NOW)
        log = successor(log)
    assert {name for name, _, _ in known(log)} == {"n0.example", "n1.example", "n2.example"}


def test_more_than_it_holds_forgets_what_was_used_least_and_counts_it() -> None:
    log = SharedLog(area=1 << 14)
    engine, bindings, _ = snapshot(log)
    for number in range(2_000):
        engine.bind(f"n{number}.example", [(address((0x0A000000 + number).to_bytes(4)), 600.0)], NOW)
    left = known(log)
    assert engine.forgotten > 0
    assert ("n1999.example", "10.0.7.207", NOW + 600) in left
    assert len(left) < len(bindings) == 2_000
    assert left < {(each.name, str(each.address), each.expires_at) for each in bindings.live(NOW)}


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=40), st.data())
@settings(deadline=None)
def test_whatever_was_written_last_is_torn_a_beginning_is_read(bodies: list[bytes], data: st.DataObject) -> None:
    log = SharedLog(area=1 << 14)
    log.rewrite([])
    before = log._memory[:]
    for body in bodies:
        assert log.append(body)
    after = log._memory[:]
    torn_at = data.draw(st.integers(0, len(after)))
    torn = SharedLog(area=1 << 14)
    torn._memory[:] = after[:torn_at] + before[torn_at:]
    read = list(torn.read())
    assert read == bodies[: len(read)]
    if torn_at >= log._end:
        assert read == bodies


@given(st.binary(min_size=2 << 10, max_size=2 << 10))
@settings(deadline=None)
def test_nonsense_is_no_record(noise: bytes) -> None:
    log = SharedLog(area=1 << 10)
    log._memory[mmap.PAGESIZE :] = noise
    assert list(log.read()) == []


@pytest.mark.parametrize(
    "body",
    [
        b"\x03a.b",
        b"\x07UPPER.x" + struct.pack("=dB", NOW + 9, 4) + bytes(4),
        b"\x03a.b" + struct.pack("=dB", NOW + 9, 5) + bytes(5),
        b"\x03a.b" + struct.pack("=dB", NOW + 9, 16) + bytes(4),
        b"\x03a.b" + struct.pack("=dB", float("nan"), 4) + bytes(4),
        b"\x03a.b" + struct.pack("=dB", NOW - 1, 4) + bytes(4),
        b"\xfe\xff",
        b"\xff\xff",
        b"\xff" + bytes(16) + b"\xff.example",
    ],
    ids=[
        "no address",
        "not canonical",
        "five octets",
        "cut off",
        "no number",
        "over",
        "no name",
        "no cost",
        "no wildcard",
    ],
)
def test_a_record_that_can_not_be_binds_nothing(body: bytes) -> None:
    log = SharedLog()
    log.rewrite([body])
    assert known(log) == set()


def test_no_binding_is_restored_for_longer_than_a_day() -> None:
    log = SharedLog()
    log.rewrite([b"\x03a.b" + struct.pack("=dB", 1e18, 4) + bytes(4)])
    assert known(log) == {("a.b", "0.0.0.0", NOW + 86_400)}


def test_a_record_larger_than_any_is_no_record() -> None:
    log = SharedLog(area=1 << 14)
    log.rewrite([])
    assert not log.append(bytes(LARGEST))


@pytest.mark.parametrize("seed", range(12))
def test_a_writer_that_is_killed_leaves_whole_records(seed: int) -> None:
    """A child binds as fast as it can, in a log so small that it is rewritten all the time."""
    log = SharedLog(area=1 << 13)
    child = os.fork()
    if child == 0:
        engine, _, _ = snapshot(log)
        for number in range(1 << 40):
            log.numbers[7] = number
            engine.bind(f"n{number}.example", [(address((number % 50 + 1).to_bytes(4)), 600.0 + number)], NOW)
    while log.numbers[7] < 500:
        time.sleep(0.001)
    time.sleep(random.Random(seed).random() / 100)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    last = log.numbers[7]
    left = known(log)
    assert all(until == NOW + 600 + int(name.removeprefix("n").removesuffix(".example")) for name, _, until in left)
    newest = max(int(name.removeprefix("n").removesuffix(".example")) for name, _, _ in left)
    assert newest in (last - 1, last)  # nothing is lost but what was being written
