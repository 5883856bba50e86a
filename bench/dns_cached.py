"""`python -m bench.dns_cached`: the resolver's cached answers alone, without netfilter, owners or journal.

One run on loopback: dnsperf asks our listener, then dnsmasq and unbound where they are installed, the same questions;
prints queries a second and CPU time a query for each.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import dns_bed as bed

_NAMES = 100
_TARGET = 30_000  # queries a second


def main() -> int:
    """Measure and print. Exit status 1 if our figure misses its target, 2 without dnsperf."""
    if shutil.which("dnsperf") is None:
        print("dns_cached: dnsperf (Debian package dnsperf) is not installed: nothing to ask with", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        questions = scratch / "questions"
        questions.write_text("".join(f"n{number}.{bed.ZONE} A\n" for number in range(_NAMES)), encoding="ascii")
        stack.enter_context(bed.child(bed.serve_upstream, bed.UPSTREAM))
        rate = _measure(stack.enter_context(bed.child(bed.serve_dnsfw, bed.DNSFW)), "dnsfw", bed.DNSFW, questions)
        peers = (("dnsmasq", bed.dnsmasq(1000), bed.DNSMASQ), ("unbound", bed.unbound(scratch), bed.UNBOUND))
        for peer, command, port in peers:
            if shutil.which(peer) is None:
                print(f"{peer:8} not installed: not compared")
                continue
            _measure(stack.enter_context(bed.started(command, port)), peer, port, questions)
        return 0 if rate >= _TARGET else 1


def _measure(pid: int, name: str, port: int, questions: Path) -> float:
    """Queries a second, printed with the CPU time a query of process `pid`, after one round that fills its cache."""
    bed.dnsperf(port, questions, "-l", "1")
    before = bed.cpu_seconds(pid)
    load = bed.dnsperf(port, questions, "-l", "5", "-q", "100")
    micros = (bed.cpu_seconds(pid) - before) / load.answered * 1e6
    print(f"{name:8} {load.rate:10,.0f} queries/s  {micros:6.1f} µs CPU a query")
    return load.rate


if __name__ == "__main__":
    sys.exit(main())
