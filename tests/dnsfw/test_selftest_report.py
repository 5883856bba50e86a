"""What selftest makes of attempts: its table, its JSON, its JUnit."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from dnsfw.errors import SetupError
from dnsfw.playground.package.catalogue import WAYS
from dnsfw.playground.package.host import WAYS as HOST_WAYS
from dnsfw.playground.package.way import Loot, Way
from dnsfw.playground.rounds import Attempt
from dnsfw.selftest.battery import _SAFE_ON_A_HOST, ON_A_HOST, on_this_host
from dnsfw.selftest.report import SUBJECTS, Fate, Report, result, text, to_json, to_junit
from tests.firewall.street import KERNEL, PLAN, built, in_force


def attempt(_: Loot) -> None:
    """Never made."""


WAY = Way("way", "a way <out>", (24, 22), attempt)
KNOWN = Way("known", "a known way", (16,), attempt, "the policy allows it")
ARRIVED, STOPPED = Attempt(("udp",), "", 0.1), Attempt((), "ECONNREFUSED", 0.1)


@pytest.mark.parametrize(
    ("way", "guarded", "unguarded", "comes_to"),
    [
        pytest.param(WAY, STOPPED, ARRIVED, (Fate.STOPPED, Fate.STOPPED, False), id="stopped"),
        pytest.param(WAY, ARRIVED, ARRIVED, (Fate.STOPPED, Fate.ARRIVED, True), id="hole"),
        pytest.param(WAY, ARRIVED, STOPPED, (Fate.STOPPED, Fate.ARRIVED, True), id="hole-only-with-the-guard"),
        pytest.param(WAY, STOPPED, STOPPED, (Fate.STOPPED, Fate.IMPOSSIBLE, False), id="impossible"),
        pytest.param(KNOWN, ARRIVED, ARRIVED, (Fate.ARRIVED, Fate.ARRIVED, False), id="known"),
        pytest.param(KNOWN, STOPPED, ARRIVED, (Fate.ARRIVED, Fate.STOPPED, False), id="known-and-stopped"),
        pytest.param(WAY, STOPPED, None, (Fate.STOPPED, Fate.STOPPED, False), id="host-stopped"),
        pytest.param(KNOWN, ARRIVED, None, (Fate.STOPPED, Fate.ARRIVED, True), id="host-allows-nothing"),
    ],
)
def test_a_result(way: Way, guarded: Attempt, unguarded: Attempt | None, comes_to: tuple[Fate, Fate, bool]) -> None:
    one = result(way, guarded, unguarded)
    assert (one.expected, one.seen, one.is_hole) == comes_to


def report(*, holes: bool) -> Report:
    results = [result(WAY, STOPPED, ARRIVED), result(KNOWN, ARRIVED, ARRIVED), result(WAY, STOPPED, STOPPED)]
    return Report("run", (*results, *([result(WAY, ARRIVED, ARRIVED)] if holes else ())))


def test_the_table_says_what_was_expected_and_seen() -> None:
    lines = text(report(holes=True)).splitlines()
    assert [line.split("  ")[0] for line in lines[:5]] == [
        "Attempt",
        "a way <out>",
        "a known way",
        *["a way <out>"] * 2,
    ]
    assert "arrived !" in lines[4]
    assert lines[-2:] == ["a known way: the policy allows it.", "1 of 3 attempts got past a throw-away run: way."]
    assert text(report(holes=False)).endswith("None of 2 attempts got past a throw-away run unexpectedly.")


def test_json_says_the_same() -> None:
    found = json.loads(json.dumps(to_json(report(holes=True))))
    assert (found["schema"], found["guard"], found["good"]) == (1, "run", False)
    assert [one["hole"] for one in found["attempts"]] == [False, False, False, True]
    assert found["attempts"][0]["subjects"] == [SUBJECTS[24], SUBJECTS[22]]


def test_junit_fails_for_holes_and_skips_what_proves_nothing() -> None:
    suite = ET.fromstring(to_junit(report(holes=True)))
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "skipped": "1",
    }
    assert [[child.tag for child in case] for case in suite] == [[], [], ["skipped"], ["failure"]]
    assert suite[0].get("name") == "a way <out>"


def test_every_attempt_has_a_subject_and_a_name_of_its_own() -> None:
    every = (*WAYS, *HOST_WAYS)
    assert {number for way in every for number in way.attacks} <= set(SUBJECTS)
    assert len({way.id for way in every}) == len(every)
    assert len(ON_A_HOST) == len(_SAFE_ON_A_HOST) + len(HOST_WAYS) >= 40
    assert len(WAYS) >= 40


@KERNEL
def test_where_nothing_could_be_proven_it_says_so() -> None:
    """A guard that only watches; then a host where not even the guard's own user gets through."""
    with built() as street, street.inside.namespace.entered():
        with in_force(street.inside, replace(PLAN, audit=True)), pytest.raises(SetupError, match="audit"):
            on_this_host(65534)
        with in_force(street.inside, PLAN), pytest.raises(SetupError, match="nothing would be proven"):
            on_this_host(65534)
        assert "dnsfw" not in street.inside.run("ip", "link")
