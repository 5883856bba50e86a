"""Flows that are looked into before they are trusted: what the queue's packets are answered with.

Law: sans-IO, one way for each protocol. What no protocol here can look into is never left half judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from firewall.answers import Answer, Judge
from firewall.connections import Connections
from firewall.datagrams import Datagrams
from policy.values import Action, Flow, Proto


class Peeks[C]:
    """Answers for every packet that the queue brings. Times are seconds of the caller's monotonic clock."""

    def __init__(self, judge: Judge[C]) -> None:
        self._judge = judge
        self._connections = Connections(judge)
        self._datagrams = Datagrams(judge)

    @property
    def evicted(self) -> int:
        """Connections forgotten for want of room; their clients' next words are denied."""
        return self._connections.evicted

    def answer(self, flow: Flow, packet: bytes, now: float) -> Answer:
        """Of a packet that gave this flow."""
        if flow.proto == Proto.TCP:
            return self._connections.answer(flow, packet, now)
        if flow.proto == Proto.UDP:
            return Answer(self._datagrams.answer(flow, packet, now))
        action, _ = self._judge.open(flow)
        return Answer(Action.DENY if action is Action.PEEK else action)

    def due(self) -> float | None:
        """When `overdue` will have something to say."""
        times = (self._connections.held.due(), self._datagrams.held.due())
        return min((time for time in times if time is not None), default=None)

    def overdue(self, now: float) -> Iterator[tuple[Flow, Answer]]:
        """What becomes of packets that were held long enough."""
        return chain(self._connections.overdue(now), self._datagrams.overdue(now))
