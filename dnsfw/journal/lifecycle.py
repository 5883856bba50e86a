"""What becomes of a guard besides its decisions: starts, deaths, reloads.

Law: values, and what follows from them. The supervisor sees turns happen and hands them to the engine of the day, which
writes them into the journal between the decisions; while there is no engine they wait.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

_MOST_GAPS = 100


class Turn(StrEnum):
    """A turn in a guard's life. The journal uses these values as they are."""

    STARTED = "started"
    DIED = "died"  # an engine: nothing new leaves from here on (in audit mode: nothing is judged)
    RESTARTED = "restarted"
    RELOADED = "reloaded"
    REFUSED = "reload-refused"  # the policy before it stays in force
    OVERFLOWED = "overflowed"  # the queue: packets were denied unjudged (in audit mode: they went by)
    STOPPED = "stopped"


class Gap(msgspec.Struct, frozen=True):
    """The engine was dead for `seconds`; `closed`: nothing new could leave meanwhile (in audit mode it could)."""

    reason: str
    seconds: float
    closed: bool


class Life(msgspec.Struct, frozen=True):
    """One turn: when (seconds since the epoch), of what ("engine", "policy"), why, and what belongs to it (errors,
    changed rules), a line each."""

    turn: Turn
    when: float
    what: str
    reason: str = ""
    lines: tuple[str, ...] = ()


class Gaps:
    """The times without an engine: `over`, and the one that lasts since `down_since` (seconds since the epoch, 0.0 if
    none does). Bounded: the earliest are let go."""

    def __init__(self, *, closed: bool) -> None:
        self.over: tuple[Gap, ...] = ()
        self.down_since = 0.0
        self._closed = closed
        self._reason = ""

    def down(self, death: Life) -> None:
        """An engine died; one that dies before it is at work makes no gap of its own."""
        if not self.down_since:
            self.down_since, self._reason = death.when, death.reason

    def back(self, now: float) -> None:
        """An engine is at work."""
        if self.down_since:
            self.over = (*self.over, Gap(self._reason, now - self.down_since, self._closed))[-_MOST_GAPS:]
            self.down_since = 0.0
