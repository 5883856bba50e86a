"""How much of a machine attribution has to look at for one guard.

Law: the supervisor's part of attribution: facts about the machine, found once, before anything is attached.
"""

from __future__ import annotations

import os

from bpf.compile import Extent, Judged, Worker
from bpf.process import ancestors
from dnsfw.machine import cgroups
from dnsfw.place import Place
from firewall.marks import MASK, Mark
from firewall.ruleset import JUDGED

_WORKER = "Runner.Worker"  # of GitHub Actions


def extent_of(place: Place) -> Extent:
    legacy = cgroups.legacy(cgroups.read_mounts())
    network = None if place.network is None else place.network.fd
    judged = Judged(Mark.JUDGE, MASK, JUDGED, network)
    return Extent(_worker(), legacy.controller if legacy else "", bridged=network is None, judged=judged)


def _worker() -> Worker | None:
    """The CI runner's process that we were started under, if we were: of all that claim that name the one furthest up,
    which no step can have started."""
    named = [stat for stat in ancestors(os.getpid()) if stat.comm == _WORKER]
    return Worker(named[-1].pid, named[-1].start_time) if named else None
