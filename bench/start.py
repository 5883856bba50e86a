"""From starting `dnsfw run` to the command's first instruction, after the first time."""

from __future__ import annotations

import time
from statistics import median

from bench.bed import Bed
from bench.figure import Figure, at_most, number

_ROUNDS = 7
_NANOSECONDS = ["date", "+%s%N"]


def measure(bed: Bed) -> list[Figure]:
    _seconds(bed, guarded=True)  # the first time
    guarded = tuple(_seconds(bed, guarded=True) for _ in range(_ROUNDS))
    direct = median(_seconds(bed, guarded=False) for _ in range(_ROUNDS))
    against = f"{number(direct)} s unguarded; slowest of {_ROUNDS}: {number(max(guarded))} s"
    return [Figure("start of a guarded command, p50", median(guarded), "s", at_most(1.0), against, guarded)]


def _seconds(bed: Bed, *, guarded: bool) -> float:
    started = time.time_ns()
    return (int(bed.run(_NANOSECONDS, guarded=guarded)) - started) / 1e9
