"""One allowed flow's throughput: a download over TLS, as programs do it, and over bare TCP, as fast as it goes."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from bench.bed import Bed
from bench.figure import Figure, at_least, number
from dnsfw.playground import atlas

_ROUNDS = 5
_TLS_BYTES, _TCP_SECONDS = 1_500_000_000, 1


def measure(bed: Bed) -> list[Figure]:
    return [
        _ratio("throughput of a TLS flow", lambda guarded: _over_tls(bed, guarded=guarded)),
        _ratio("throughput of a bare TCP flow", lambda guarded: _over_tcp(bed, guarded=guarded)),
    ]


def _ratio(name: str, rate: Callable[[bool], float]) -> Figure:
    """Rounds alternate between direct and guarded."""
    rounds = [(rate(False), rate(True)) for _ in range(_ROUNDS)]  # noqa: FBT003  # (direct, guarded)
    ratios = tuple(guarded / direct for direct, guarded in rounds)
    direct, guarded = (number(median(side)) for side in zip(*rounds, strict=True))
    spread = f"ratios from {number(min(ratios))} to {number(max(ratios))}"
    against = f"{direct} MB/s direct, {guarded} MB/s guarded; {spread}"
    return Figure(name, median(ratios), "of direct", at_least(0.95), against, ratios)


def _over_tls(bed: Bed, *, guarded: bool) -> float:
    url = f"https://{atlas.ALLOWED_NAME}/bytes/{_TLS_BYTES}"
    shown = ["--write-out", "%{speed_download}", "--output", "/dev/null"]
    said = bed.run(["curl", "-4sS", "--fail", "--cacert", str(bed.world.authority), *shown, url], guarded=guarded)
    return float(said) / 1e6


def _over_tcp(bed: Bed, *, guarded: bool) -> float:
    return bed.client("download", atlas.CHARGEN_PORT, _TCP_SECONDS, guarded=guarded)["rate"]
