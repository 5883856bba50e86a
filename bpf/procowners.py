"""The process behind a flow, searched for afterwards: where BPF can't be had.

Law: the same answers as bpf/owners.py, less surely and far slower: the socket by sock_diag, who holds it by /proc. Who
is gone is unknown; so is a socket that two processes hold, and whatever a process could have said of itself alone:
steps of a job. `of` never raises for what a foreign process did. Wants CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bpf.cgroup import CgroupPaths
from bpf.container import Container, Seclusion, container_of
from bpf.process import Process, read_process
from bpf.sockdiag import SockDiag
from bpf.source import Attribution, DescriptionOf, undescribed
from policy.values import Flow, Owner, Proto

_DNS = 53
_MOST_PROCESSES = 32_768


@dataclass(frozen=True, slots=True)
class Legacy:
    """A cgroup v1 hierarchy: one of its controllers, and its tree."""

    controller: str
    paths: CgroupPaths


@dataclass(frozen=True, slots=True)
class ProcSources:
    """As bpf.owners.Sources. `guarded` is the cgroup2 directory whose processes are looked through, `ports` are those
    that port 53 is redirected to."""

    diag: SockDiag
    guarded: Path
    cgroups: CgroupPaths
    ports: frozenset[int]
    legacy: Legacy | None = None
    mount_namespace: int = 0
    depth: int = 0
    describe: DescriptionOf = undescribed


class ProcOwners:
    """`counts` as in bpf.owners.Owners; "contested" are sockets that several processes hold."""

    attribution = Attribution.PROC

    def __init__(self, sources: ProcSources) -> None:
        self._sources = sources
        self.counts: Counter[str] = Counter()
        self._our_users = Path("/proc/self/ns/user").stat().st_ino

    def of(self, flow: Flow) -> Owner | None:
        """The one process that holds the flow's socket now. None if that can't be said."""
        process = self._process(flow)
        if process is None:
            self.counts["unknown"] += 1
            return None
        owner = self._owner(process)
        self.counts["known" if owner.complete else "partial"] += 1
        return owner

    def evicted(self) -> dict[str, int]:
        """Nothing is kept, so nothing is lost."""
        return {}

    def _process(self, flow: Flow) -> Process | None:
        if flow.proto not in (Proto.TCP, Proto.UDP):
            return None
        try:
            inodes = self._sources.diag.senders(flow, _DNS if flow.dport in self._sources.ports else None)
        except OSError:
            self.counts["fault"] += 1
            return None
        if len(inodes) != 1:
            return None
        holders = list(self._holders(f"socket:[{inodes.pop()}]"))
        if len(holders) > 1:
            self.counts["contested"] += 1
        return read_process(holders[0]) if len(holders) == 1 else None

    def _holders(self, link: str) -> Iterator[int]:
        """The guarded processes that have this open."""
        for pid in self._guarded():
            try:
                with os.scandir(f"/proc/{pid}/fd") as descriptors:
                    if any(_leads_to(entry.path, link) for entry in descriptors):
                        yield pid
            except OSError:  # gone
                continue

    def _guarded(self) -> Iterator[int]:
        seen = 0
        for directory, _, _ in os.walk(self._sources.guarded):
            with suppress(OSError):  # removed meanwhile
                for pid in (Path(directory) / "cgroup.procs").read_text(encoding="ascii").split():
                    seen += 1
                    if seen > _MOST_PROCESSES:
                        return
                    yield int(pid)

    def _owner(self, process: Process) -> Owner:
        """In a user namespace of one's own anything can be mounted anywhere: no path there is evidence."""
        evident = process.namespace("user") == self._our_users
        container = self._container(process)
        cgroup = process.cgroup("")
        owner = Owner(
            pid=process.stat.pid,
            start_time=process.stat.start_time,
            uid=process.uid,
            exe=process.exe if evident else "",
            argv=process.argv,
            cgroup=cgroup,
            comm=process.stat.comm,
            container=container.id if container else None,
            image=None if container is None or container.id else "",
            complete=process.complete and evident and cgroup != "",
        )
        said = self._sources.describe(container) if container and container.id else None
        return replace(owner, image=said.image, container_name=said.name) if said else owner

    def _container(self, process: Process) -> Container | None:
        sources = self._sources
        places = [sources.cgroups.place_of(process.cgroup(""))]
        if sources.legacy:
            places.append(sources.legacy.paths.place_of(process.cgroup(sources.legacy.controller)))
        mounts = process.namespace("mnt")
        secluded = Seclusion(
            pid=None if process.pid_depth is None else process.pid_depth > sources.depth,
            mount=None if mounts is None else mounts != sources.mount_namespace,
        )
        return container_of(tuple(places), secluded)


def _leads_to(path: str, link: str) -> bool:
    try:
        return os.readlink(path) == link  # noqa: PTH115 - thousands of them
    except OSError:
        return False
