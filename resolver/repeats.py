"""Replies that are given again within the second in which they were first given, without asking anybody.

Law: pure; time is an argument; bounded. A reply stands here for one owner and for the very octets of a question, and
all of them are forgotten when the second is over or the policy changes, so whatever counts down, is bound or is
judged by the second is as it would be without. How often each was given is told to the judge when it goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from policy.values import Owner
from resolver.judge import Again

_CAPACITY: Final = 1024  # replies of one second; telling the judge of them all at once takes some milliseconds


@dataclass(slots=True)
class Repeat:
    """`rest` is all of a reply but its id, `size` the octets of the whole; `times` that it was given from here."""

    rest: bytes
    again: Again
    size: int = field(init=False)
    times: int = 0

    def __post_init__(self) -> None:
        self.size = 2 + len(self.rest)


@dataclass(frozen=True, slots=True)
class Told:
    """What one owner was told this second: replies by the octets of the question behind its id."""

    owner: Owner | None
    ready: dict[bytes, Repeat] = field(default_factory=dict)


class Repeats:
    """What was told in one second, by owner."""

    def __init__(self) -> None:
        self._second = 0
        self._all: dict[Owner | None, Told] = {}
        self._kept = 0

    def __len__(self) -> int:
        return self._kept

    def of(self, owner: Owner | None, now: float) -> Told:
        """What this owner was told. Good until the next call, or until the loop runs other code."""
        if self._second != int(now) or len(self._all) >= _CAPACITY:
            self.settle()
            self._second = int(now)
        told = self._all.get(owner)
        if told is None:
            told = self._all[owner] = Told(owner)
        return told

    def keep(self, told: Told, query: bytes, reply: bytes, again: Again) -> None:
        if self._kept < _CAPACITY:
            told.ready[query[2:]] = Repeat(reply[2:], again)
            self._kept += 1

    def settle(self) -> None:
        """Forget everything, and tell the judge what was repeated."""
        ended, self._all, self._kept = self._all, {}, 0
        for told in ended.values():
            for repeat in told.ready.values():
                if repeat.times:
                    repeat.again(repeat.times)
            told.ready.clear()
