"""What live flows were let through as.

Law: bounded and cheap; nothing is decided here. A name's binding may have run out, a process may have ended, and a
server name is said once: when the policy changes, a flow is judged again by what was known when it began. What is
missing was crowded out or never noted, and then only what is known now counts.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from policy import Flow, Owner

SILENCE: Final = 180.0  # seconds without a judgement that end a UDP flow; conntrack's own time-out for an assured one
_FLOWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Admission:
    """The process that a flow was of, the names that its far end had, or the one that it said, and when: seconds of a
    monotonic clock. `inspected`: it was sent to the proxy."""

    owner: Owner | None
    names: tuple[str, ...]
    at: float
    inspected: bool = False


class Admitted:
    """By flow, the newest; the oldest go first."""

    def __init__(self, capacity: int = _FLOWS) -> None:
        self._capacity = capacity
        self._table: OrderedDict[bytes, Admission] = OrderedDict()

    def __len__(self) -> int:
        return len(self._table)

    def note(self, flow: Flow, admission: Admission) -> None:
        """In the place of what was noted for an earlier flow with the same ends."""
        key = flow.packed
        self._table[key] = admission
        self._table.move_to_end(key)
        if len(self._table) > self._capacity:
            self._table.popitem(last=False)

    def forget(self, flow: Flow) -> None:
        """Another one begins that has the same ends."""
        self._table.pop(flow.packed, None)

    def of(self, flow: Flow) -> Admission | None:
        return self._table.get(flow.packed)

    def at(self, packed: bytes) -> Admission | None:
        """The same by Flow.packed."""
        return self._table.get(packed)
