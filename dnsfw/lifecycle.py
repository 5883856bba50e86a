"""What becomes of a guard besides its decisions: starts, deaths, reloads.

Law: values only. The supervisor sees them happen and hands them to the engine of the day, which writes them into the
journal between the decisions; while there is no engine they wait.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Turn(StrEnum):
    """A turn in a guard's life. The journal uses these values as they are."""

    STARTED = "started"
    DIED = "died"  # an engine: nothing new leaves from here on (in audit mode: nothing is judged)
    RESTARTED = "restarted"
    RELOADED = "reloaded"
    REFUSED = "reload-refused"  # the policy before it stays in force
    STOPPED = "stopped"


class Life(msgspec.Struct, frozen=True):
    """One turn: when (seconds since the epoch), of what ("engine", "policy"), why, and what belongs to it (errors,
    changed rules), a line each."""

    turn: Turn
    when: float
    what: str
    reason: str = ""
    lines: tuple[str, ...] = ()
