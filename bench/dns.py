"""Cached DNS answers a second, journal on, asked by dnsperf; dnsmasq answers the same questions beside it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.bed import Bed, BenchError
from bench.figure import Figure, at_least, number
from dnsfw.playground import atlas

_ROUNDS, _SECONDS = 3, 3
_NAMES = 30  # all on one address, which keeps 32 of them
_PEER = ("127.0.0.1", 5300)


def measure(bed: Bed) -> list[Figure]:
    questions = bed.world.directory / "questions"
    questions.write_text("".join(f"n{n}.{atlas.WILDCARD_ZONE} A\n" for n in range(_NAMES)), encoding="ascii")
    with _dnsmasq(bed):
        rounds = [(_ask(bed, questions, *_PEER), _ask(bed, questions, atlas.UPSTREAM.v4)) for _ in range(_ROUNDS)]
    peers, guarded = zip(*rounds, strict=True)
    against = f"{number(median(peers))} from dnsmasq"
    return [Figure("cached DNS answers a second", median(guarded), "1/s", at_least(30000), against, guarded)]


def _ask(bed: Bed, questions: Path, server: str, port: int = 53) -> float:
    """Queries a second; port 53 is asked from inside the guard. Raises BenchError if any question went unanswered."""
    argv = ["dnsperf", "-s", server, "-p", str(port), "-d", str(questions), "-l", str(_SECONDS)]
    said = bed.run(argv, guarded=port == 53, options=("--journal", str(bed.world.directory / "journal")))
    completed, rate = (re.search(pattern, said) for pattern in (r"completed:.*\((.*)%\)", r"per second:\s+([\d.]+)"))
    if completed is None or rate is None or float(completed[1]) < 99.9:
        raise BenchError(f"dnsperf's questions were not all answered: {said}")
    return float(rate[1])


@contextmanager
def _dnsmasq(bed: Bed) -> Iterator[None]:
    """The peer, caching in front of the same upstream, on the laptop's loopback."""
    address, port = _PEER
    options = ["--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root", "--bind-interfaces"]
    options += [f"--listen-address={address}", f"--port={port}", f"--server={atlas.UPSTREAM.v4}", "--cache-size=1000"]
    with bed.world.popen(["dnsmasq", *options], stderr=subprocess.PIPE, text=True) as process:
        try:
            if not any(": started" in line for line in process.stderr or ()):
                raise BenchError("dnsmasq did not start")
            yield
        finally:
            process.terminate()
