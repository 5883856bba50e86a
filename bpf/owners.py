"""The process behind a flow.

Law: `of` never raises for what a foreign process did, reads no /proc, and prefers None to a guess: an unknown owner
satisfies no attribute. Which hook knows which flow stands in user.bpf.c and sender.bpf.c.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace

from cachetools import LRUCache

from bpf import records
from bpf.cgroup import CgroupPaths
from bpf.container import Container, Seclusion, container_of
from bpf.loader import Attached
from bpf.records import Program, Use
from bpf.sockdiag import SockDiag
from bpf.source import Attribution, DescriptionOf, undescribed
from bpf.step import UNKNOWN_STEP, Step, read_step
from policy.values import Flow, Owner, Proto

_CACHED = 1024
_NS_PER_S = 10**9


@dataclass(frozen=True, slots=True)
class Sources:
    """Where owners are read from: the BPF maps, the guarded namespace's sock_diag, the cgroup2 tree; `legacy` is the
    cgroup v1 hierarchy that containers are in, where there is one. `mount_namespace` is the machine's (an inode), and
    `depth` the number of PID namespaces that guarded processes are below ours without being in any container.
    `describe` knows what engines say of containers."""

    attached: Attached
    diag: SockDiag
    cgroups: CgroupPaths
    legacy: CgroupPaths | None = None
    mount_namespace: int = 0
    depth: int = 0
    describe: DescriptionOf = undescribed


class Owners:
    """Owners of flows in the guarded network namespace, as sent by its processes.

    `counts` says how many look-ups ended how: "known", "partial" (some facts missing), "contested", "unknown".
    """

    def __init__(self, sources: Sources) -> None:
        self.attribution = Attribution.SENDERS if sources.attached.sees_senders else Attribution.SOCKETS
        self._sources = sources
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._owners: LRUCache[bytes, tuple[Owner, Container | None]] = LRUCache(_CACHED)
        self._steps: LRUCache[bytes, Step] = LRUCache(_CACHED)
        self.counts: Counter[str] = Counter()

    def of(self, flow: Flow) -> Owner | None:
        """The process that sent this flow's newest packet, as it was then. None if that can't be said for sure."""
        record = self._record(self._sources, flow)
        if record is None:
            self.counts["unknown"] += 1
            return None
        owner = self._owner(record)
        self.counts["contested" if owner is None else "known" if owner.complete else "partial"] += 1
        return owner

    def evicted(self) -> dict[str, int]:
        """How many records the kernel's bounded tables have lost. Not for the path of a packet."""
        try:
            return self._sources.attached.evicted()
        except OSError:
            self.counts["fault"] += 1
            return {}

    def _record(self, sources: Sources, flow: Flow) -> bytes | None:
        try:
            flows = sources.attached.flows
            if flow.dport in sources.attached.watched_ports:
                return flows.get(records.flow_key(flow)) or flows.get(records.question_key(flow))
            if flow.proto == Proto.TCP:
                return _tcp(sources.attached, flow)
            if sources.attached.sees_senders:  # here, or in another network namespace
                return flows.get(records.flow_key(flow, judged=True)) or flows.get(records.flow_key(flow))
            return _udp(sources, flow) if flow.proto == Proto.UDP else None
        except OSError:
            self.counts["fault"] += 1  # a kernel object failed us: unknown, and visible
        return None

    def _owner(self, record: bytes) -> Owner | None:
        """None if contested. Cached by the process key, which an exec changes and no other process ever has, and by all
        that a process may change without an exec: never stale. What an engine says may become known later."""
        key = records.identity(record)
        if known := self._owners.get(key):
            return self._with_description(*known)
        use = records.read_use(record)
        if use.contested:
            return None
        owner, container = self._read_owner(self._sources, use)
        if owner.complete:
            self._owners[key] = owner, container
        return self._with_description(owner, container)

    def _with_description(self, owner: Owner, container: Container | None) -> Owner:
        if not container or not container.id:
            return owner
        said = self._sources.describe(container)
        return replace(owner, image=said.image, container_name=said.name) if said else owner

    def _read_owner(self, sources: Sources, use: Use) -> tuple[Owner, Container | None]:
        raw = sources.attached.programs.get(use.process)
        program = records.read_program(raw) if raw else records.UNKNOWN_PROGRAM
        place = sources.cgroups.place(use.cgroup)
        container = self._container(sources, use, program) if raw else None
        step = self._step(sources, program.step)
        owner = Owner(
            pid=use.pid,
            start_time=use.start_ns * self._ticks // _NS_PER_S,
            uid=use.uid,
            exe=program.exe,
            argv=program.argv,
            cgroup=place.path,
            comm=program.comm,
            container=container.id if container else None,
            image=None if container is None or container.id else "",
            step=step.step,
            action=step.action,
            complete=program.complete and place.path != "",
        )
        return owner, container

    def _container(self, sources: Sources, use: Use, program: Program) -> Container | None:
        places = [sources.cgroups.place(use.cgroup)]
        if sources.legacy and program.legacy_cgroup:
            places.append(sources.legacy.place(program.legacy_cgroup))
        secluded = Seclusion(
            pid=program.pid_depth > sources.depth,
            mount=program.mount_namespace != sources.mount_namespace,
        )
        return container_of(tuple(places), secluded)

    def _step(self, sources: Sources, key: bytes) -> Step:
        """Kept once read: the kernel's table of them is small, and what a step was never changes."""
        if not key or sources.attached.steps is None:
            return UNKNOWN_STEP
        if (known := self._steps.get(key)) is not None:
            return known
        raw = sources.attached.steps.get(key)
        given = records.read_surroundings(raw) if raw else None
        if given is None:
            return UNKNOWN_STEP
        step = self._steps[key] = read_step(*given)
        return step


def _tcp(attached: Attached, flow: Flow) -> bytes | None:
    """Who opened a connection, until it is seen who sends on it. None if that was another socket, as a raw one can."""
    opened = attached.connection(records.flow_key(flow))
    sent = attached.flows.get(records.flow_key(flow, judged=True)) if opened and attached.sees_senders else None
    if sent is None or opened is None:
        return opened
    begun, use = records.read_use(opened), records.read_use(sent)
    if use.cookie == begun.cookie:
        return sent
    return opened if use.used_ns < begun.used_ns else None  # an earlier connection's


def _udp(sources: Sources, flow: Flow) -> bytes | None:
    """Where senders aren't seen: a connected socket is known by its cookie, another by what it last sent where.

    Two sockets may share a port (SO_REUSEPORT). If one is connected and the other sent to the same place since, or
    just before, the packet may be from either; then the same process must be behind both.
    """
    flows = sources.attached.flows
    sent = flows.get(records.flow_key(flow, any_source=True))
    found = sources.diag.find(flow)
    if found is None:  # from another network namespace, perhaps
        passed = flows.get(records.flow_key(flow))
        return _latest(passed, sent) if passed and sent else passed or sent
    if not found.connected:
        return sent
    used = sources.attached.sockets.get(records.COOKIE.pack(found.cookie))
    return _latest(used, sent) if used and sent else used


def _latest(used: bytes, sent: bytes) -> bytes | None:
    """The record of a connected socket, or of the datagram if it is the same socket's; None if another's contests."""
    use, other = records.read_use(used), records.read_use(sent)
    if other.process == use.process or other.used_ns <= use.used_ns - records.CONTEST_NS:
        return used
    return sent if other.cookie == use.cookie else None
