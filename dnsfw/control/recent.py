"""Which flows were judged of late: what `dnsfw flows` shows.

Law: bounded, and cheap to feed from a packet's path. One entry for each process's program and destination.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from dnsfw.journal.records import Entry
from policy import Action, Flow

_KEPT = 2_000

type _Key = tuple[object, ...]


@dataclass(slots=True)
class Judged:
    """The latest decision of its kind, when it was (seconds since the epoch), and how many there were."""

    latest: Entry
    when: float
    count: int = 1


@dataclass(slots=True)
class Recent:
    """The flows of the last entries, the least recent forgotten first."""

    _table: OrderedDict[_Key, Judged] = field(default_factory=OrderedDict)

    def take(self, entry: Entry, when: float) -> None:
        """Remember a flow; anything else is none."""
        flow = entry.subject
        if not isinstance(flow, Flow):
            return
        allowed = entry.decision.action is not Action.DENY
        key = (flow.proto, flow.dst, flow.dport, entry.owner and entry.owner.exe, allowed)
        known = self._table.get(key)
        if known is not None:
            known.latest, known.when, known.count = entry, when, known.count + entry.times
            self._table.move_to_end(key)
            return
        self._table[key] = Judged(entry, when, entry.times)
        if len(self._table) > _KEPT:
            self._table.popitem(last=False)

    def latest_first(self) -> list[Judged]:
        return sorted(self._table.values(), key=lambda judged: -judged.when)
