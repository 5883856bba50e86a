"""A bounded table whose entries end.

Law: pure; the caller's clock is the only one. The least recently used entry goes when there is no room, and is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Timed[K: Hashable, V]:
    """At most `most` entries, each until it was left alone for `idle` seconds. `evicted` counts what went before."""

    def __init__(self, most: int, idle: float) -> None:
        self.evicted = 0
        self._most = most
        self._idle = idle
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now: float) -> V | None:
        """Asking counts as use."""
        found = self._entries.get(key)
        if found is None:
            return None
        value, used = found
        if now - used > self._idle:
            del self._entries[key]
            return None
        self._entries[key] = value, now
        self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V, now: float) -> V | None:
        """In the place of any earlier value; what had to go for it. For each new one an old one is looked at, so that
        what nobody asks for ends too."""
        entries = self._entries
        entries[key] = value, now
        entries.move_to_end(key)
        oldest = next(iter(entries))
        if now - entries[oldest][1] > self._idle:
            del entries[oldest]
        if len(entries) <= self._most:
            return None
        self.evicted += 1
        return entries.popitem(last=False)[1][0]

    def pop(self, key: K) -> None:
        """Forget it; not there is fine."""
        self._entries.pop(key, None)
