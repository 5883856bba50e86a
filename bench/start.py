"""From starting `dnsfw run` to the command's first instruction, after the first time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from bench.bed import Bed
from bench.figure import Figure, at_most, number
from dnsfw.playground import atlas

_ROUNDS = 7
_NANOSECONDS = ["date", "+%s%N"]
_URLS = f"https://{atlas.ALLOWED_NAME}/*\n"  # a policy that wants the proxy


def measure(bed: Bed) -> list[Figure]:
    urls = bed.world.directory / "start.policy"
    urls.write_text(_URLS, encoding="utf-8")
    with_proxy = ["--policy", str(urls)]
    for options in ([], with_proxy):
        _seconds(bed, options)  # the first time
    rounds = [(_seconds(bed, []), _seconds(bed, with_proxy)) for _ in range(_ROUNDS)]  # in turns
    direct = median(_seconds(bed, None) for _ in range(_ROUNDS))
    guarded, proxied = (tuple(taken) for taken in zip(*rounds, strict=True))
    return [
        _figure("start of a guarded command, p50", guarded, 1.0, f"{number(direct)} s unguarded"),
        _figure("start with a URL rule, its proxy ready, p50", proxied, 2.5, f"{number(median(guarded))} s without"),
    ]


def _figure(name: str, rounds: tuple[float, ...], goal: float, against: str) -> Figure:
    slowest = f"{against}; slowest of {_ROUNDS}: {number(max(rounds))} s"
    return Figure(name, median(rounds), "s", at_most(goal), slowest, rounds)


def _seconds(bed: Bed, options: Sequence[str] | None) -> float:
    """`options` of the guard; None: without one."""
    started = time.time_ns()
    told = bed.run(_NANOSECONDS, guarded=options is not None, options=options or [])
    return (int(told) - started) / 1e9
