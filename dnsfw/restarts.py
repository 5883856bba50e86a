"""When to start again what died, and when to call it failed.

Law: sans-IO: deaths and times in, the time of the next start out. Whoever holds the process sleeps and starts it. A
guard never gives up: what is called failed is tried again, at the longest pause, while its table stays closed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """In seconds: the pause after a first death is `first`, after each further one twice the last, at most `longest`.
    A life of `steady` makes up for all deaths before it; `many` deaths without one are a failure."""

    first: float = 0.1
    longest: float = 30.0
    steady: float = 60.0
    many: int = 5


class Restarts:
    """One process's lives. Times are seconds of the caller's monotonic clock.

    `total` counts its deaths, `reason` says how the last one came about, `due` is when to start it again: None while
    it lives.
    """

    def __init__(self, pace: Pace = Pace()) -> None:
        self.total = 0
        self.reason = ""
        self.due: float | None = None
        self._pace = pace
        self._in_a_row = 0
        self._pause = pace.first
        self._since: float | None = None

    @property
    def failed(self) -> bool:
        """It dies again and again: a person should know."""
        return self._in_a_row >= self._pace.many

    def started(self, now: float) -> None:
        """It is at work. A process that never gets there has no life to make up for anything."""
        self.due = None
        self._since = now

    def died(self, reason: str, now: float) -> float:
        """It is dead; seconds to wait before the next start."""
        if self._since is not None and now - self._since >= self._pace.steady:
            self._in_a_row, self._pause = 0, self._pace.first
        pause, self._pause = self._pause, min(2 * self._pause, self._pace.longest)
        self._since = None
        self._in_a_row += 1
        self.total += 1
        self.reason = reason
        self.due = now + pause
        return pause

    def wait(self, now: float) -> float | None:
        """Seconds until the next start, 0 if it is due; None while it lives."""
        return None if self.due is None else max(0.0, self.due - now)
