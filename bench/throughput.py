"""One allowed flow's throughput, downloading."""

from __future__ import annotations

from statistics import median

from bench.bed import Bed
from bench.figure import Figure, at_least, number
from dnsfw.playground import atlas

_ROUNDS, _SECONDS = 3, 2


def measure(bed: Bed) -> list[Figure]:
    rounds = [
        [bed.client("download", atlas.CHARGEN_PORT, _SECONDS, guarded=guarded)["rate"] for guarded in (False, True)]
        for _ in range(_ROUNDS)
    ]
    ratios = tuple(guarded / direct for direct, guarded in rounds)
    ends = " / ".join(number(median(side)) for side in zip(*rounds, strict=True))
    return [
        Figure("throughput of an allowed flow", median(ratios), "of direct", at_least(0.95), f"{ends} MB/s", ratios)
    ]
