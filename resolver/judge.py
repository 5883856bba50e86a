"""What the resolver asks of whoever judges: who speaks, may this name be resolved, and may that be said again?

Law: the words of that conversation, nothing else. The resolver never decides; it may repeat a decision, within
bounds that the judge sets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from policy.decide import Decision
from policy.value import Value
from policy.values import Flow, Owner, Query

type Again = Callable[[int], None]


class Ruling(Value, frozen=True):
    """A decision, and whether it holds for the same question from the same owner until the policy changes. Then
    `again` takes how many times it was given again, to be recorded; None: ask each time. A denial that may be another
    decision in a moment is kept `silent`: clients ask again where nobody answers."""

    decision: Decision
    again: Again | None = None
    silent: bool = False


class Judge(Protocol):
    """The gate, as the resolver sees it."""

    def owner_of(self, client: Flow, /) -> Owner | None:
        """The process that sent the newest datagram of this flow; None where nobody can say."""

    def resolve(self, query: Query, owner: Owner | None, /) -> Ruling:
        """May this name be resolved?"""


class Plain:
    """A judge that looks at the query alone and wants to be asked each time."""

    def __init__(self, decide: Callable[[Query], Decision]) -> None:
        self._decide = decide

    def owner_of(self, _client: Flow, /) -> Owner | None:
        return None

    def resolve(self, query: Query, _owner: Owner | None, /) -> Ruling:
        return Ruling(self._decide(query))
