"""The process behind a flow.

Law: `of` never raises for what a foreign process did, reads no /proc, and prefers None to a guess: an unknown owner
satisfies no attribute. Which hook knows which flow stands in owner.bpf.c.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from cachetools import LRUCache

from bpf import records
from bpf.cgroup import CgroupPaths
from bpf.loader import Attached
from bpf.records import Use
from bpf.sockdiag import SockDiag
from policy.values import Flow, Owner, Proto

_CACHED = 1024
_NS_PER_S = 10**9


@dataclass(frozen=True, slots=True)
class Sources:
    """Where owners are read from: the BPF maps, the guarded namespace's sock_diag, the cgroup2 tree."""

    attached: Attached
    diag: SockDiag
    cgroups: CgroupPaths


class Owners:
    """Owners of flows in the guarded network namespace, as sent by its processes. Without `sources` all are unknown.

    `counts` says how many look-ups ended how: "known", "partial" (some facts missing), "contested", "unknown".
    """

    def __init__(self, sources: Sources | None) -> None:
        self._sources = sources
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._owners: LRUCache[bytes, Owner] = LRUCache(_CACHED)
        self.counts: Counter[str] = Counter()

    def of(self, flow: Flow) -> Owner | None:
        """The process that sent this flow's newest packet, as it was then. None if that can't be said for sure."""
        record = self._record(self._sources, flow) if self._sources else None
        if self._sources is None or record is None:
            self.counts["unknown"] += 1
            return None
        owner = self._owner(self._sources, record)
        self.counts["contested" if owner is None else "known" if owner.complete else "partial"] += 1
        return owner

    def _record(self, sources: Sources, flow: Flow) -> bytes | None:
        try:
            if flow.proto == Proto.TCP or flow.dport in sources.attached.watched_ports:
                return sources.attached.flows.get(records.flow_key(flow))
            if flow.proto == Proto.UDP:
                return _udp(sources, flow)
        except OSError:
            self.counts["fault"] += 1  # a kernel object failed us: unknown, and visible
        return None

    def _owner(self, sources: Sources, record: bytes) -> Owner | None:
        """None if contested. Cached by the process key, which an exec changes and no other process ever has, and by all
        that a process may change without an exec: never stale."""
        key = records.identity(record)
        owner = self._owners.get(key)
        if owner is not None:
            return owner
        use = records.read_use(record)
        if use.contested:
            return None
        owner = self._read_owner(sources, use)
        if owner.complete:
            self._owners[key] = owner
        return owner

    def _read_owner(self, sources: Sources, use: Use) -> Owner:
        raw = sources.attached.programs.get(use.process)
        program = records.read_program(raw) if raw else records.UNKNOWN_PROGRAM
        cgroup = sources.cgroups.path(use.cgroup)
        return Owner(
            pid=use.pid,
            start_time=use.start_ns * self._ticks // _NS_PER_S,
            uid=use.uid,
            exe=program.exe,
            argv=program.argv,
            cgroup=cgroup,
            comm=use.comm,
            complete=program.complete and cgroup != "",
        )


def _udp(sources: Sources, flow: Flow) -> bytes | None:
    """A connected socket is known by its cookie, an unconnected one by what it last sent where.

    Two sockets may share a port (SO_REUSEPORT). If one is connected and the other sent to the same place since, or
    just before, the packet may be from either; then the same process must be behind both.
    """
    sent = sources.attached.flows.get(records.flow_key(flow, any_source=True))
    found = sources.diag.find(flow)
    if found is None or not found.connected:
        return sent
    used = sources.attached.sockets.get(records.COOKIE.pack(found.cookie))
    return _latest(used, sent) if used and sent else used


def _latest(used: bytes, sent: bytes) -> bytes | None:
    """The record of a connected socket, or of the datagram if it is the same socket's; None if another's contests."""
    use, other = records.read_use(used), records.read_use(sent)
    if other.process == use.process or other.used_ns <= use.used_ns - records.CONTEST_NS:
        return used
    return sent if other.cookie == use.cookie else None
