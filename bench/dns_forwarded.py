"""`python -m bench.dns_forwarded`: questions that no cache knows, taken to an upstream on loopback.

One run: how long one question takes, straight from the upstream and through us, one after another; then how many a
second at 100 under way, beside dnsmasq without a cache.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles

from bench import dns_bed as bed

_SINGLE = 3_000  # questions one after another
_MANY = 60_000


def main() -> int:
    """Measure and print. Exit status 1 if a target is missed, 2 without dnsperf or dnsmasq."""
    if shutil.which("dnsperf") is None or shutil.which("dnsmasq") is None:
        print("dns_forwarded: dnsperf or dnsmasq (Debian packages) is not installed", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        questions = scratch / "questions"
        questions.write_text("".join(f"m{number}.{bed.ZONE} A\n" for number in range(_MANY)), encoding="ascii")
        stack.enter_context(bed.child(bed.serve_upstream, bed.UPSTREAM))
        ours = stack.enter_context(bed.child(bed.serve_dnsfw, bed.DNSFW))
        theirs = stack.enter_context(bed.started(bed.dnsmasq(0), bed.DNSMASQ))
        added = _latencies()
        rates = [
            _rate(pid, name, port, questions)
            for pid, name, port in ((ours, "dnsfw", bed.DNSFW), (theirs, "dnsmasq", bed.DNSMASQ))
        ]
    print(f"{rates[0] / rates[1]:.2f} of dnsmasq (target 0.5)")
    return 0 if rates[0] >= rates[1] / 2 and added[0] <= 150 and added[1] <= 1000 else 1


def _latencies() -> tuple[float, float]:
    """What we add to a question's time, p50 and p99 in µs; printed."""
    p50, p99 = list[float](), list[float]()
    for name, port in (("upstream", bed.UPSTREAM), ("dnsfw", bed.DNSFW), ("dnsmasq", bed.DNSMASQ)):
        cuts = quantiles(_ask_singly(port), n=100)
        print(f"{name:8} p50 {cuts[49]:6.0f} µs  p99 {cuts[98]:6.0f} µs")
        p50.append(cuts[49])
        p99.append(cuts[98])
    added = (p50[1] - p50[0], p99[1] - p99[0])
    print(f"added    p50 {added[0]:6.0f} µs (target 150)  p99 {added[1]:6.0f} µs (target 1,000)")
    return added


def _ask_singly(port: int) -> list[float]:
    """Each question's time in µs."""
    times = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect(("127.0.0.1", port))
        for number in range(_SINGLE):
            name = f"s{number:06}".encode()
            question = number.to_bytes(2) + b"\1\0\0\1\0\0\0\0\0\0\7" + name + b"\7example\3com\0\0\1\0\1"
            before = time.perf_counter()
            client.send(question)
            client.recv(4096)
            times.append((time.perf_counter() - before) * 1e6)
    return times


def _rate(pid: int, name: str, port: int, questions: Path) -> float:
    before = bed.cpu_seconds(pid)
    load = bed.dnsperf(port, questions, "-n", "1", "-q", "100")
    micros = (bed.cpu_seconds(pid) - before) / load.answered * 1e6
    print(f"{name:8} {load.rate:10,.0f} queries/s  {micros:6.1f} µs CPU a query")
    return load.rate


if __name__ == "__main__":
    sys.exit(main())
