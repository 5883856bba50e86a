"""Who speaks: the source of owners that an engine has.

Law: composition of the room `bpf` for one guard. What has to be opened is opened here, once, as root.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

from bpf.cgroup import CgroupPaths
from bpf.loader import Attached
from bpf.owners import Owners, Sources
from bpf.procowners import Legacy, ProcOwners, ProcSources
from bpf.sockdiag import SockDiag
from bpf.source import DescriptionOf, OwnerSource, undescribed
from dnsfw.containers.known import Containers, Inquiry
from dnsfw.machine import cgroups
from dnsfw.machine.privilege import Capability
from dnsfw.place import EngineConfig
from policy.values import Owner


class Attribution:
    """`owners`, and what is read for them while an engine serves. Make it as root, while there is one thread.
    `capabilities` are those that looking owners up takes, beside what an engine has in any case."""

    def __init__(self, config: EngineConfig, attached: Attached | None, diag: SockDiag, stack: ExitStack) -> None:
        on_host = config.place.network is None
        # No container is started from under `run`: engines' sockets are out of its sight.
        self._containers = _inquiry(config, stack) if on_host else None
        machine = _Machine(
            stack,
            ports=frozenset(each.port for each in (config.listeners, config.wide) if each),
            depth=0 if on_host else 1,  # a command is in a PID namespace of its own
            describe=undescribed if self._containers is None else self._containers.describe,
        )
        self.owners: OwnerSource
        self.capabilities: tuple[Capability, ...] = ()
        if attached is None:
            self.owners = machine.searched(diag, config.place.cgroup)
            self.capabilities = (Capability.SYS_PTRACE,)  # to see who holds which socket
        else:
            self.owners = machine.recorded(diag, attached)

    def awaits(self, owner: Owner) -> bool:
        """Will more be known of it in a moment?"""
        return self._containers is not None and self._containers.awaits(owner)

    def serve(self, loop: AbstractEventLoop) -> None:
        """Hear of containers from now on."""
        if self._containers is not None:
            loop.add_reader(self._containers.fileno(), self._hear, loop, self._containers)

    def _hear(self, loop: AbstractEventLoop, containers: Containers) -> None:
        if not containers.hear():  # the inquirer is gone: what isn't known stays so, and opens nothing
            loop.remove_reader(containers.fileno())


def _inquiry(config: EngineConfig, stack: ExitStack) -> Containers:
    return stack.enter_context(Inquiry(config.user, monotonic)).containers


class _Machine:
    """What both sources of owners want to know of the machine."""

    def __init__(self, stack: ExitStack, ports: frozenset[int], depth: int, describe: DescriptionOf) -> None:
        legacy = cgroups.legacy(cgroups.read_mounts())
        self._ports, self._depth, self._describe = ports, depth, describe
        self._paths = stack.enter_context(CgroupPaths(cgroups.find_root()))
        self._legacy = Legacy(legacy.controller, stack.enter_context(CgroupPaths(legacy.mount))) if legacy else None

    def recorded(self, diag: SockDiag, attached: Attached) -> Owners:
        for port in self._ports:
            attached.watch(port)
        legacy = self._legacy.paths if self._legacy else None
        mounts = _machine_mounts()
        return Owners(Sources(attached, diag, self._paths, legacy, mounts, self._depth, self._describe))

    def searched(self, diag: SockDiag, guarded: Path) -> ProcOwners:
        mounts = _machine_mounts()
        return ProcOwners(
            ProcSources(diag, guarded, self._paths, self._ports, self._legacy, mounts, self._depth, self._describe)
        )


def _machine_mounts() -> int:
    """The inode number of the machine's own mount namespace: init's, or ours if that can't be seen."""
    for process in ("1", "self"):
        try:
            return Path(f"/proc/{process}/ns/mnt").stat().st_ino
        except OSError:
            continue
    return 0
