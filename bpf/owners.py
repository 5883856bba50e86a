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
from bpf.records import Program, Use
from bpf.sockdiag import SockDiag
from policy.values import Flow, Owner, Proto

_PROGRAMS = 1024
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
        self._programs: LRUCache[bytes, Program] = LRUCache(_PROGRAMS)
        self.counts: Counter[str] = Counter()

    def of(self, flow: Flow) -> Owner | None:
        """The process that sent this flow's newest packet, as it was then. None if that can't be said for sure."""
        use = self._use(self._sources, flow) if self._sources else None
        if self._sources is None or use is None or use.contested:
            self.counts["contested" if use else "unknown"] += 1
            return None
        owner = self._owner(self._sources, use)
        self.counts["known" if owner.complete else "partial"] += 1
        return owner

    def _use(self, sources: Sources, flow: Flow) -> Use | None:
        try:
            if flow.proto == Proto.TCP:
                return _by_flow(sources, records.flow_key(flow))
            if flow.proto == Proto.UDP:
                return _by_flow(sources, records.flow_key(flow)) or _udp(sources, flow)
        except OSError:
            self.counts["fault"] += 1  # a kernel object failed us: unknown, and visible
        return None

    def _owner(self, sources: Sources, use: Use) -> Owner:
        program = self._program(sources, use)
        cgroup = sources.cgroups.path(use.cgroup)
        return Owner(
            pid=use.pid,
            start_time=use.start_ns * self._ticks // _NS_PER_S,
            uid=use.uid,
            exe=program.exe if program else "",
            argv=program.argv if program else (),
            cgroup=cgroup,
            comm=use.comm,
            complete=program is not None and program.complete and cgroup != "",
        )

    def _program(self, sources: Sources, use: Use) -> Program | None:
        """Cached by process key, which an exec changes and no other process ever has: never stale."""
        known = self._programs.get(use.process)
        if known is None and (raw := sources.attached.programs.get(use.process)) is not None:
            known = self._programs[use.process] = records.read_program(raw)
        return known


def _by_flow(sources: Sources, key: bytes) -> Use | None:
    raw = sources.attached.flows.get(key)
    return records.read_use(raw) if raw else None


def _udp(sources: Sources, flow: Flow) -> Use | None:
    """A connected socket is known by its cookie, an unconnected one by what it last sent where.

    Two sockets may share a port (SO_REUSEPORT). If one is connected and the other sent to the same place since, or
    just before, the packet may be from either; then the same process must be behind both.
    """
    sent = _by_flow(sources, records.flow_key(flow, any_source=True))
    found = sources.diag.find(flow)
    if found is None or not found.connected:
        return sent
    raw = sources.attached.sockets.get(records.COOKIE.pack(found.cookie))
    use = records.read_use(raw) if raw else None
    if use and sent and sent.process != use.process and sent.used_ns > use.used_ns - records.CONTEST_NS:
        return None if sent.cookie != use.cookie else sent
    return use
