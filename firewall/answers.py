"""What the queue is told of a packet, and who says so.

Law: the words between the queue, the tables that flows wait in, and whoever judges; and the bound on that waiting.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import NamedTuple, Protocol

from policy.values import Action, Flow, Seen


class Answer(NamedTuple):
    """What becomes of a packet. `action` None holds it back, with all of its flow, until the flow has an action.
    `instead` goes in its place. `reset` is a packet that tells the other end of a connection of its end. `fresh`: it
    begins one; what was held of an earlier one with the same ends is denied. `unproven`: it is
    allowed, and may not arrive and come again as something else: its client is listened to until it was answered."""

    action: Action | None
    instead: bytes | None = None
    reset: bytes | None = None
    fresh: bool = False
    unproven: bool = False


class Judge[C](Protocol):
    """Who decides. A case is what the judge knows of a flow, and holds for the flow's life."""

    def open(self, flow: Flow) -> tuple[Action, C]:
        """May it start? PEEK: yes, and its client's words are judged next."""

    def named(self, case: C, seen: Seen) -> Action:
        """May it go on, now that the client has spoken? Never PEEK."""

    def hinted(self, case: C, seen: Seen) -> bool:
        """May the client go on speaking? It has said a name, and there is more to come."""

    def again(self, flow: Flow) -> Action:
        """May it go on, if it is one that was let through before? Never PEEK."""

    def unread(self, case: C, problem: str) -> Action:
        """Its words say nothing that could be judged: DENY, or ALLOW where nothing is denied."""

    def era(self) -> object:
        """The policy in force: with another one, what was judged is judged again."""


class Held[K: Hashable]:
    """Flows with packets in the kernel's queue that wait for more: at most `most`, each for `patience` seconds."""

    def __init__(self, most: int, patience: float) -> None:
        self._most = most
        self._patience = patience
        self._until: dict[K, float] = {}  # in the order of their times

    def __contains__(self, key: K) -> bool:
        return key in self._until

    @property
    def full(self) -> bool:
        """Is there no room for another one?"""
        return len(self._until) >= self._most

    def add(self, key: K, now: float) -> None:
        """A flow that waits already goes on waiting for as long as before."""
        self._until.setdefault(key, now + self._patience)

    def pop(self, key: K) -> None:
        """It waits no more; it may not have waited at all."""
        if self._until:
            self._until.pop(key, None)

    def due(self) -> float | None:
        """When the first of them has waited for long enough."""
        return next(iter(self._until.values()), None)

    def overdue(self, now: float) -> Iterator[K]:
        """Those that have, and wait no more."""
        while (due := self.due()) is not None and due <= now:
            key = next(iter(self._until))
            del self._until[key]
            yield key
