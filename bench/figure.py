"""One measured figure, and how it compares with its target.

Law: values and their text, for a person and for a file; nothing here measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Bound(StrEnum):
    """On which side of its target a figure should be."""

    AT_MOST = "≤"
    AT_LEAST = "≥"


@dataclass(frozen=True, slots=True)
class Target:
    """What the project asks of a figure."""

    bound: Bound
    value: float

    def met_by(self, value: float) -> bool:
        return value <= self.value if self.bound is Bound.AT_MOST else value >= self.value


@dataclass(frozen=True, slots=True)
class Figure:
    """`value`, in `unit`, is what the target is about. `against` tells in words what it was compared with in the same
    run, `runs` every single result behind the value, in the order they came."""

    name: str
    value: float
    unit: str
    target: Target | None = None
    against: str = ""
    runs: tuple[float, ...] = ()

    def __str__(self) -> str:
        """The figure beside its target; on a second line what it is compared with."""
        measured = f"{self.name:<34} {number(self.value):>9} {self.unit:<10}"
        if self.target is not None:
            verdict = "met" if self.target.met_by(self.value) else "MISSED"
            measured += f" target {self.target.bound} {number(self.target.value):<7} {verdict}"
        return f"{measured}\n    {self.against}" if self.against else measured


def at_most(value: float) -> Target:
    return Target(Bound.AT_MOST, value)


def at_least(value: float) -> Target:
    return Target(Bound.AT_LEAST, value)


def number(value: float) -> str:
    """Three significant digits, thousands grouped: 0.953, 71.2, 4,870."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f}"
