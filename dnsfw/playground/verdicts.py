"""What two rounds prove.

Law: pure: attempts in, verdicts and JSON out. Whether something got through is what the internet's side received;
what the program was told is shown, and never counts against that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dnsfw.playground.package.build import NEEDS
from dnsfw.playground.package.catalogue import GROUPS
from dnsfw.playground.package.way import Way
from dnsfw.playground.rounds import Attempt, Round


class Verdict(StrEnum):
    """Of one way, or one need of the build, over both rounds."""

    CLOSED = "closed"  # arrived unguarded, did not arrive guarded
    OPEN = "open"  # arrived although guarded
    KNOWN_OPEN = "known-open"  # likewise, as expected and explained
    NO_WAY = "no-way"  # did not arrive even unguarded: proves nothing on this machine
    WORKS = "works"
    BROKEN = "broken"


_FAILURES = frozenset({Verdict.OPEN, Verdict.BROKEN})


@dataclass(frozen=True, slots=True)
class Line:
    """One way in both rounds."""

    way: Way
    unguarded: Attempt
    guarded: Attempt
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """`groups` holds the ways out under their headings, `build` the honest build's needs."""

    build: tuple[Line, ...]
    groups: dict[str, tuple[Line, ...]]
    summary: str

    @property
    def ways(self) -> tuple[Line, ...]:
        return tuple(line for group in self.groups.values() for line in group)

    @property
    def good(self) -> bool:
        """Nothing unexpected got through, and the build worked."""
        return not any(line.verdict in _FAILURES for line in (*self.build, *self.ways))

    def count(self, verdict: Verdict) -> int:
        return sum(line.verdict is verdict for line in self.ways)


def judge_way(way: Way, unguarded: Attempt, guarded: Attempt) -> Verdict:
    if guarded.arrived:
        return Verdict.KNOWN_OPEN if way.open_because else Verdict.OPEN
    return Verdict.CLOSED if unguarded.arrived else Verdict.NO_WAY


def judge_need(_: Way, unguarded: Attempt, guarded: Attempt) -> Verdict:
    """A build works if the site was reached and its answer came back, and is only a proof if it did so before."""
    works = all(attempt.arrived and not attempt.ended for attempt in (unguarded, guarded))
    return Verdict.WORKS if works else Verdict.BROKEN


def report(unguarded: Round, guarded: Round) -> Report:
    def lines(ways: Iterable[Way], *, needs: bool = False) -> tuple[Line, ...]:
        judge = judge_need if needs else judge_way
        pairs = ((way, unguarded.attempts[way.id], guarded.attempts[way.id]) for way in ways)
        return tuple(Line(*pair, judge(*pair)) for pair in pairs)

    return Report(lines(NEEDS, needs=True), {title: lines(ways) for title, ways in GROUPS.items()}, guarded.stderr)


def to_json(one: Report) -> dict[str, Any]:
    """For `dnsfw demo --json`. `schema` changes when a field's meaning does."""
    return {
        "schema": 1,
        "good": one.good,
        "build": [_line_to_json(line) for line in one.build],
        "ways": [_line_to_json(line) for line in one.ways],
    }


def _line_to_json(line: Line) -> dict[str, Any]:
    return {
        "id": line.way.id,
        "title": line.way.title,
        "attacks": list(line.way.attacks),
        "verdict": line.verdict.value,
        "open_because": line.way.open_because,
        "unguarded": _attempt_to_json(line.unguarded),
        "guarded": _attempt_to_json(line.guarded),
    }


def _attempt_to_json(attempt: Attempt) -> dict[str, Any]:
    return {"arrived": list(attempt.arrived), "ended": attempt.ended, "seconds": attempt.seconds}
