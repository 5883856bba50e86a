"""Connecting through the guard to an allowed name, one client, one connection after the other."""

from __future__ import annotations

from statistics import median

from bench.bed import Bed
from bench.figure import Figure, at_least, at_most, number
from dnsfw.playground import atlas

_ROUNDS, _CONNECTS = 3, 2000


def measure(bed: Bed) -> list[Figure]:
    """Rounds alternate, so that a busy moment of the machine doesn't meet one side alone."""
    rounds = [
        [bed.client("connects", atlas.DISCARD_PORT, _CONNECTS, guarded=guarded) for guarded in (False, True)]
        for _ in range(_ROUNDS)
    ]
    direct, guarded = ({key: median(each[side][key] for each in rounds) for key in rounds[0][0]} for side in (0, 1))
    added = tuple(through["p50"] - straight["p50"] for straight, through in rounds)
    rates = tuple(through["rate"] for _, through in rounds)
    ends = f"p50 {number(direct['p50'])} µs direct, {number(guarded['p50'])} µs guarded"
    tails = f"p99 {number(direct['p99'])} µs direct, {number(guarded['p99'])} µs guarded"
    return [
        Figure("connect: added by the guard, p50", median(added), "µs", at_most(200), f"{ends}; {tails}", added),
        Figure("connects a second", median(rates), "1/s", at_least(4000), f"{number(direct['rate'])} direct", rates),
    ]
