"""Who speaks: the source of owners that an engine has.

Law: composition of the room `bpf` for one guard. What has to be opened is opened here, once, as root.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bpf.cgroup import CgroupPaths
from bpf.loader import Attached
from bpf.owners import Owners, Sources
from bpf.sockdiag import SockDiag
from bpf.source import OwnerSource
from dnsfw import cgroups
from dnsfw.place import Place


def owners(place: Place, attached: Attached, diag: SockDiag, port: int, stack: ExitStack) -> OwnerSource:
    """Where the owners of flows come from; `port` is the resolver's."""
    attached.watch(port)
    legacy = cgroups.legacy(cgroups.read_mounts())
    return Owners(
        Sources(
            attached,
            diag,
            stack.enter_context(CgroupPaths(cgroups.find_root())),
            stack.enter_context(CgroupPaths(legacy.mount)) if legacy else None,
            _machine_mounts(),
            depth=0 if place.network is None else 1,  # a command is in a PID namespace of its own
        )
    )


def _machine_mounts() -> int:
    """The inode number of the machine's own mount namespace: init's, or ours if that can't be seen."""
    for process in ("1", "self"):
        try:
            return Path(f"/proc/{process}/ns/mnt").stat().st_ino
        except OSError:
            continue
    return 0
