"""More packets than can be judged: what was lost, told while it lasts and at the end.

Law: counts what the kernel counted (firewall.overflow) and says so. Lost means dropped, so denied; in audit mode such a
packet went by unjudged. Looks only while packets come.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from typing import Final

from dnsfw.journal.lifecycle import Life, Turn
from dnsfw.journal.tally import several
from firewall.overflow import Load

_EVERY: Final = 1.0  # seconds between two looks


class Storms:
    """`load` is the queue's; `tell` takes what the journal is to have; `clock` is seconds since the epoch."""

    def __init__(
        self, load: Callable[[], Load], tell: Callable[[Life], None], clock: Callable[[], float], *, audit: bool
    ) -> None:
        self.lost = 0
        self._load, self._tell, self._clock = load, tell, clock
        self._fate = "let by" if audit else "denied"
        self._next: TimerHandle | None = None

    def expect(self, loop: AbstractEventLoop) -> None:
        """Packets come: look soon, if that isn't planned yet."""
        if self._next is None:
            self._next = loop.call_later(_EVERY, self._look, loop)

    def end(self) -> None:
        """A last look."""
        if self._next is not None:
            self._next.cancel()
        self._count()

    def trouble(self) -> list[str]:
        """A sentence, where anything was lost."""
        return [f"{several(self.lost, 'packet')} {self._fate} unjudged: too many came at once"] if self.lost else []

    def _look(self, loop: AbstractEventLoop) -> None:
        self._next = None
        if self._count():
            self.expect(loop)

    def _count(self) -> int:
        """What was lost since the last look."""
        load = self._load()
        new, self.lost = load.lost - self.lost, load.lost
        if new > 0:
            what = f"{several(new, 'packet')} {self._fate} unjudged, {load.waiting} wait"
            self._tell(Life(Turn.OVERFLOWED, self._clock(), "queue", what))
        return new
