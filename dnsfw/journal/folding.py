"""Many decisions alike, as one.

Law: cheap to feed from a packet's path, bounded, and loses no count. What is alike differs in its time and source port
alone. One thread feeds, another takes what came together.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass

from dnsfw.journal.records import Entry, Taken
from policy import Flow, Query, Request

_KINDS = 4_096  # in one window; more are not folded


@dataclass(slots=True)
class _Fold:
    """What came first, and how many more since."""

    entry: Entry
    more: int = 0
    since: float = 0.0
    until: float = 0.0


class Folding:
    """One window at a time. The first entry of a kind is for the caller to write; `roll` gives the others."""

    def __init__(self) -> None:
        self._folds: dict[Hashable, _Fold] = {}
        self._lock = threading.Lock()  # held for some instructions by either side

    @property
    def pending(self) -> bool:
        """Is there a window that began?"""
        return bool(self._folds)

    def takes(self, entry: Entry, when: float) -> bool:
        """Is it one more of a kind that was there before? Then it is counted."""
        if entry.fault is not None or entry.spent is not None:
            return False  # each has a tale of its own
        key = _key(entry)
        if key is None:
            return False
        with self._lock:
            fold = self._folds.get(key)
            if fold is None:
                if len(self._folds) < _KINDS:
                    self._folds[key] = _Fold(entry)
                return False
            if not _alike(fold.entry, entry):
                return False
            if not fold.more:
                fold.since = when
            fold.more += entry.times
            fold.until = when
            return True

    def roll(self) -> list[Taken]:
        """Begin a new window; what came more than once in the last one."""
        with self._lock:
            folds, self._folds = self._folds, {}
        return [Taken(fold.entry, fold.since, fold.more, fold.until) for fold in folds.values() if fold.more]


def _key(entry: Entry) -> Hashable:
    """Enough to find what may be alike, None for what never is. Nothing that hashes slowly: attribution gives the same
    owner for the same process, and the fold keeps it alive."""
    subject = entry.subject
    if isinstance(subject, Query):
        return (subject.name, subject.qtype, id(entry.owner))
    if isinstance(subject, Flow):
        asked = None if entry.seen is None else entry.seen.name
        return (int(subject.dst), entry.decision.action, asked, id(entry.owner))
    if isinstance(subject, Request):
        return (subject.scheme, subject.host, subject.method, subject.path, id(entry.owner))
    return None


def _alike(one: Entry, other: Entry) -> bool:
    """Of two entries with the same key."""
    if one.owner is not other.owner or one.names != other.names or one.seen != other.seen:
        return False
    if one.decision is not other.decision and one.decision != other.decision:
        return False
    before, now = _flow(one), _flow(other)
    return (
        (before.src is now.src or before.src == now.src)
        and (before.dst is now.dst or before.dst == now.dst)
        and before.proto == now.proto
        and before.dport == now.dport
    )


def _flow(entry: Entry) -> Flow:
    subject = entry.subject
    if isinstance(subject, Query):
        return subject.client
    if isinstance(subject, Request):
        return subject.flow
    if isinstance(subject, Flow):
        return subject
    raise TypeError("what has no subject has no key")
