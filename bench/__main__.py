"""`python -m bench [NAME…]`: measures all figures, or those named; each beside its target; writes bench/results/."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench import (
    action,
    connects,
    daemon,
    dns,
    memory,
    opensnitch,
    owners,
    peek,
    policy,
    proxy,
    reload,
    resolver,
    start,
    storm,
    throughput,
)
from bench.bed import Bed
from bench.figure import Figure

MEASURES: dict[str, Callable[[Bed], Iterable[Figure]]] = {
    "connects": connects.measure,
    "peek": peek.measure,
    "throughput": throughput.measure,
    "start": start.measure,
    "memory": memory.measure,
    "dns": dns.measure,
    "resolver": resolver.measure,
    "owners": owners.measure,
    "storm": storm.measure,
    "opensnitch": opensnitch.measure,
    "policy": policy.measure,
    "proxy": proxy.measure,
    "daemon": daemon.measure,
    "reload": reload.measure,
    "action": action.measure,
}


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if "model name" in line), ":")
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "cpu": f"{os.cpu_count()} cores, {cpu.split(':')[1].strip() or platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "load before": load(),
    }


def load() -> str:
    """The machine's run queue over 1, 5 and 15 minutes."""
    return " ".join(f"{each:.2f}" for each in os.getloadavg())


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        print(f"bench: no figure called {', '.join(unknown)}; there are {', '.join(MEASURES)}", file=sys.stderr)
        return 2
    started, taken_on, figures = datetime.now(UTC), machine(), []
    print(*(f"{key}: {value}" for key, value in taken_on.items()), sep="; ", flush=True)
    with Bed() as bed:
        for name in names or MEASURES:
            for figure in MEASURES[name](bed):
                figures.append(figure)
                print(figure, flush=True)
    taken_on["load after"] = load()
    print(f"load after: {taken_on['load after']} (busy with anything else, a machine gives figures of little worth)")
    results = Path(__file__).with_name("results") / f"{started:%Y-%m-%dT%H-%M-%SZ}.json"
    results.parent.mkdir(exist_ok=True)
    results.write_text(
        json.dumps({"machine": taken_on, "figures": [asdict(each) for each in figures]}, indent=2) + "\n"
    )
    print(f"written to {results}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
