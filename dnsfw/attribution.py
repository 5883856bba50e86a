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
from bpf.sockdiag import SockDiag
from bpf.source import OwnerSource, undescribed
from dnsfw import cgroups
from dnsfw.containers.known import Containers, Inquiry
from dnsfw.place import EngineConfig


class Attribution:
    """`owners`, and what is read for them while an engine serves. Make it as root, while there is one thread."""

    def __init__(self, config: EngineConfig, attached: Attached, diag: SockDiag, stack: ExitStack) -> None:
        attached.watch(config.listeners.port)
        legacy = cgroups.legacy(cgroups.read_mounts())
        on_host = config.place.network is None
        # No container is started from under `run`: engines' sockets are out of its sight.
        self._containers = stack.enter_context(Inquiry(config.user, monotonic)).containers if on_host else None
        sources = Sources(
            attached,
            diag,
            stack.enter_context(CgroupPaths(cgroups.find_root())),
            stack.enter_context(CgroupPaths(legacy.mount)) if legacy else None,
            _machine_mounts(),
            depth=0 if on_host else 1,  # a command is in a PID namespace of its own
            describe=undescribed if self._containers is None else self._containers.describe,
        )
        self.owners: OwnerSource = Owners(sources)

    def serve(self, loop: AbstractEventLoop) -> None:
        """Hear of containers from now on."""
        if self._containers is not None:
            loop.add_reader(self._containers.fileno(), self._hear, loop, self._containers)

    def _hear(self, loop: AbstractEventLoop, containers: Containers) -> None:
        if not containers.hear():  # the inquirer is gone: what isn't known stays so, and opens nothing
            loop.remove_reader(containers.fileno())


def _machine_mounts() -> int:
    """The inode number of the machine's own mount namespace: init's, or ours if that can't be seen."""
    for process in ("1", "self"):
        try:
            return Path(f"/proc/{process}/ns/mnt").stat().st_ino
        except OSError:
            continue
    return 0
