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
class Standing:
    """What one owner was told this second: replies by the octets of the question behind its id."""

    owner: Owner | None
    ready: dict[bytes, Repeat] = field(default_factory=dict)


class Repeats:
    """The standings of one second."""

    def __init__(self) -> None:
        self._second = 0
        self._standings: dict[Owner | None, Standing] = {}
        self._kept = 0

    def __len__(self) -> int:
        return self._kept

    def of(self, owner: Owner | None, now: float) -> Standing:
        """The owner's standing. Good until the next call, or until the loop runs other code."""
        if self._second != int(now) or len(self._standings) >= _CAPACITY:
            self.settle()
            self._second = int(now)
        standing = self._standings.get(owner)
        if standing is None:
            standing = self._standings[owner] = Standing(owner)
        return standing

    def keep(self, standing: Standing, query: bytes, reply: bytes, again: Again) -> None:
        if self._kept < _CAPACITY:
            standing.ready[query[2:]] = Repeat(reply[2:], again)
            self._kept += 1

    def settle(self) -> None:
        """Forget everything, and tell the judge what was repeated."""
        standings, self._standings, self._kept = self._standings, {}, 0
        for standing in standings.values():
            for repeat in standing.ready.values():
                if repeat.times:
                    repeat.again(repeat.times)
            standing.ready.clear()
