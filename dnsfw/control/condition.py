"""How a guard is while nobody answers for it, left where `dnsfw status` looks.

Law: one small file in the run's directory, there only while the engine is dead: written by the supervisor, replaced
whole. Anybody may read it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

_FILE = "condition"


class Condition(msgspec.Struct, frozen=True):
    """An engine is dead. `deaths` counts all of them, `failed` says that it dies again and again, `reason` is the last
    one's; `again` is in how many seconds the next one starts, from `when` (seconds since the epoch) on."""

    deaths: int
    failed: bool
    reason: str
    audit: bool
    when: float
    again: float

    def __str__(self) -> str:
        meanwhile = "nothing is judged" if self.audit else "nothing new leaves"
        times = "once" if self.deaths == 1 else f"{self.deaths} times"
        how = "It has failed: its engine" if self.failed else "Its engine"
        again = f"the next one is started within {max(1, round(self.again))} s"
        return f"{how} died {times}, the last one of {self.reason}; {again}. Until then {meanwhile}."


def leave(condition: Condition, directory: Path) -> None:
    """Raises OSError."""
    partial = directory / f"{_FILE}.new"
    partial.touch(mode=0o644)
    partial.write_bytes(msgspec.json.encode(condition))
    partial.replace(directory / _FILE)


def clear(directory: Path) -> None:
    """The engine is at work. Not there: fine."""
    with suppress(OSError):
        (directory / _FILE).unlink(missing_ok=True)


def read(directory: Path) -> Condition | None:
    """None where there is none to be read."""
    try:
        return msgspec.json.decode((directory / _FILE).read_bytes(), type=Condition)
    except (OSError, msgspec.MsgspecError):
        return None
