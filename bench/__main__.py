"""`python -m bench [NAME…]`: measures all figures, or those named; prints a table and writes bench/results/."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import connects, dns, memory, start, throughput
from bench.bed import Bed
from bench.figure import Figure, number

MEASURES: dict[str, Callable[[Bed], list[Figure]]] = {
    "connects": connects.measure,
    "throughput": throughput.measure,
    "start": start.measure,
    "memory": memory.measure,
    "dns": dns.measure,
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
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def table(figures: list[Figure]) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("figure", "measured", "target", "", "in the same run"):
        shown.add_column(heading, justify="right" if heading in {"measured", "target"} else "left")
    for figure in figures:
        target = f"{figure.target.bound} {number(figure.target.value)}" if figure.target else ""
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[figure.met]
        shown.add_row(figure.name, f"{number(figure.value)} {figure.unit}", target, verdict, figure.against)
    return shown


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        print(f"bench: no figure called {', '.join(unknown)}; there are {', '.join(MEASURES)}", file=sys.stderr)
        return 2
    console, taken_on, figures = Console(), machine(), []
    started = datetime.now(UTC)
    with Bed() as bed:
        for name in names or MEASURES:
            with console.status(f"measuring {name}"):
                figures += MEASURES[name](bed)
    console.print(*(f"{key}: {value}" for key, value in taken_on.items()), sep="\n")
    console.print(table(figures))
    results = Path(__file__).with_name("results") / f"{started:%Y-%m-%dT%H-%M-%SZ}.json"
    results.parent.mkdir(exist_ok=True)
    results.write_text(
        json.dumps({"machine": taken_on, "figures": [asdict(each) for each in figures]}, indent=2) + "\n"
    )
    console.print(f"written to {results}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
