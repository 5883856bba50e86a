"""How much of a machine attribution has to look at for one guard.

Law: the supervisor's part of attribution: facts about the machine, found once, before anything is attached.
"""

from __future__ import annotations

import os

from bpf.compile import Extent, Worker
from bpf.process import ancestors
from dnsfw.machine import cgroups
from dnsfw.place import Place

_WORKER = "Runner.Worker"  # of GitHub Actions


def extent_of(place: Place) -> Extent:
    legacy = cgroups.legacy(cgroups.read_mounts())
    return Extent(_worker(), legacy.controller if legacy else "", bridged=place.network is None)


def _worker() -> Worker | None:
    """The CI runner's process that we were started under, if we were: of all that claim that name the one furthest up,
    which no step can have started."""
    named = [stat for stat in ancestors(os.getpid()) if stat.comm == _WORKER]
    return Worker(named[-1].pid, named[-1].start_time) if named else None
