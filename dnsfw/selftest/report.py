"""What the attempts prove, for people and machines.

Law: pure: attempts in; text, JSON and JUnit out. Whether something got out is what the far side received.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from xml.etree import ElementTree as ET

from dnsfw.playground.package.way import Way
from dnsfw.playground.rounds import Attempt

SCHEMA: Final = 1

# The lines of the attack list that attempts belong to, by number.
SUBJECTS: Final[Mapping[int, str]] = {
    6: "unsolicited DNS responses",
    11: "a denied host on an allowed host's address",
    16: "names as a tunnel",
    17: "malformed questions",
    19: "a denied question behind an allowed one",
    20: "other ways to a resolver",
    22: "straight to an address that nobody resolved",
    23: "UDP tricks",
    24: "odd sockets, protocols, packets and marks",
    25: "the guard's own ports",
    26: "a Host or server name that differs from the address's",
    27: "paths and methods that rules about URLs don't name",
    28: "new namespaces, helpers, containers",
    30: "outliving or flooding the guard",
}


class Fate(StrEnum):
    """What is to become of an attempt, and what did."""

    STOPPED = "stopped"
    ARRIVED = "arrived"
    IMPOSSIBLE = "impossible"  # on this machine not even without a guard: it proves nothing


@dataclass(frozen=True, slots=True)
class Result:
    """One attempt. `told` is the error that the program saw, "" for none; `note` says why it may arrive."""

    id: str
    title: str
    subjects: tuple[str, ...]
    expected: Fate
    seen: Fate
    told: str
    note: str = ""

    @property
    def is_hole(self) -> bool:
        return self.seen is Fate.ARRIVED and self.expected is Fate.STOPPED


@dataclass(frozen=True, slots=True)
class Report:
    """`guard` is "up" or "run": which one was tried."""

    guard: str
    results: tuple[Result, ...]

    @property
    def holes(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.is_hole)


def result(way: Way, guarded: Attempt, unguarded: Attempt | None) -> Result:
    """`unguarded` is None where it can't be tried without the guard: on a host, whose policy names none of this."""
    expected = Fate.ARRIVED if way.open_because and unguarded is not None else Fate.STOPPED
    seen = Fate.ARRIVED if guarded.arrived else Fate.STOPPED
    if seen is Fate.STOPPED and unguarded is not None and not unguarded.arrived:
        seen = Fate.IMPOSSIBLE
    subjects = tuple(SUBJECTS[number] for number in way.attacks)
    return Result(
        way.id, way.title, subjects, expected, seen, guarded.ended, way.open_because if expected is Fate.ARRIVED else ""
    )


def text(report: Report) -> str:
    """The table, what it comes to, and a sentence on each attempt that may arrive."""
    rows = [("Attempt", "Expected", "Seen", "Program told", "Of")]
    rows += [
        (one.title, one.expected, one.seen + (" !" if one.is_hole else ""), one.told or "no error", one.subjects[0])
        for one in report.results
    ]
    notes = {one.note: one.title for one in report.results if one.seen is Fate.ARRIVED and one.note}
    return "\n".join([*_aligned(rows), "", *(f"{title}: {note}." for note, title in notes.items()), conclusion(report)])


def conclusion(report: Report) -> str:
    tried = sum(one.seen is not Fate.IMPOSSIBLE for one in report.results)
    by = "the guard of this host" if report.guard == "up" else "a throw-away run"
    if report.holes:
        return f"{len(report.holes)} of {tried} attempts got past {by}: {', '.join(one.id for one in report.holes)}."
    return f"None of {tried} attempts got past {by} unexpectedly."


def _aligned(rows: list[tuple[str, str, str, str, str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def to_json(report: Report) -> dict[str, Any]:
    """`schema` changes when a field's meaning does."""
    attempts = [
        {
            "id": one.id,
            "attempt": one.title,
            "subjects": list(one.subjects),
            "expected": one.expected.value,
            "seen": one.seen.value,
            "told": one.told,
            "hole": one.is_hole,
            "note": one.note,
        }
        for one in report.results
    ]
    return {"schema": SCHEMA, "guard": report.guard, "good": not report.holes, "attempts": attempts}


def to_junit(report: Report) -> str:
    """One test case an attempt: a hole failed, what is impossible here was skipped."""
    skipped = _count(one.seen is Fate.IMPOSSIBLE for one in report.results)
    numbers = {"tests": str(len(report.results)), "failures": str(len(report.holes)), "skipped": skipped}
    suite = ET.Element("testsuite", {"name": f"dnsfw selftest ({report.guard})", "errors": "0", **numbers})
    for one in report.results:
        case = ET.SubElement(suite, "testcase", classname=f"dnsfw.selftest.{report.guard}", name=one.title)
        if one.is_hole:
            what = f"it arrived ({'; '.join(one.subjects)})"
            failure = ET.SubElement(case, "failure", message=what)
            failure.text = f"the program was told: {one.told or 'nothing'}"
        elif one.seen is Fate.IMPOSSIBLE:
            ET.SubElement(case, "skipped", message="not possible on this machine, even without a guard")
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _count(these: Iterable[bool]) -> str:
    return str(sum(these))
