"""The guard of a host as a daemon: how soon it is up, down, and back from a death; what it costs while nothing happens.

Law: `dnsfw up` on the playground's laptop as a person would call it, measured from outside by the clock and by /proc.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.bed import Bed, BenchError
from bench.figure import Figure, at_most, number
from bench.memory import kilobytes, megabytes_once
from dnsfw.playground import atlas

_ROUNDS = 7
_IDLE_SECONDS = 10.0
_SETTLING_SECONDS = 2.0
_DAY_PATIENCE = 900.0
_GROWTH = 2.0  # MB that the allocator may wander
# Connects until it works, and says when: seconds since the epoch.
_UNTIL_IT_WORKS = """
import socket, sys, time
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.05).close()
        break
    except OSError:
        pass
print(time.time())
"""


def measure(bed: Bed) -> list[Figure]:
    _up(bed)
    _down(bed)  # the first time
    ups, downs = [], []
    for _ in range(_ROUNDS):
        ups.append(_timed(bed, _up))
        downs.append(_timed(bed, _down))
    with guarded(bed) as guard:
        idle = _idle(guard)
        family = _family(guard)
        memory, each = megabytes_once(family), [kilobytes(pid, "Rss") / 1024 for pid in family]
        deaths = _deaths(bed, guard)
    return [
        Figure("up: until the host is guarded, p50", median(ups), "s", at_most(1.0), _slowest(ups), tuple(ups)),
        Figure("down: until the host is as it was", median(downs), "s", at_most(0.5), _slowest(downs), tuple(downs)),
        Figure("an engine's death: until a connect", deaths[0], "s", at_most(1.0), "the first", tuple(deaths)),
        Figure("idle: processor time", idle, "%", at_most(0.1), f"over {_IDLE_SECONDS:g} s, all processes"),
        Figure("idle: memory, each page once", memory, "MB", at_most(60), _apart(each), tuple(each)),
        _day(),
    ]


def _slowest(runs: list[float]) -> str:
    return f"slowest of {len(runs)}: {number(max(runs))} s"


def _apart(each: list[float]) -> str:
    return f"{len(each)} processes, shared pages counted in each: {number(sum(each))} MB"


def _timed(bed: Bed, work: Callable[[Bed], None]) -> float:
    began = time.monotonic()
    work(bed)
    return time.monotonic() - began


def _up(bed: Bed) -> None:
    _call(bed, "up", "--detach", "--policy", str(bed.policy), "--upstream", atlas.UPSTREAM.v4)


def _down(bed: Bed) -> None:
    _call(bed, "down")


def _call(bed: Bed, *arguments: str) -> str:
    done = bed.world.run(bed.world.dnsfw(*arguments))
    if done.returncode != 0:
        raise BenchError(f"dnsfw {arguments[0]} ended with {done.returncode}: {done.stderr}")
    return done.stderr


@contextmanager
def guarded(bed: Bed) -> Iterator[int]:
    """The supervisor's pid."""
    said = _call(bed, "up", "--detach", "--policy", str(bed.policy), "--upstream", atlas.UPSTREAM.v4)
    try:
        yield int(said.split("as process ")[1].split(";")[0])
    finally:
        _down(bed)


def _family(supervisor: int) -> list[int]:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii").split()
    return [supervisor, *map(int, children)]


def _idle(supervisor: int) -> float:
    """Percent of one processor."""
    time.sleep(_SETTLING_SECONDS)
    before = _ticks(supervisor)
    time.sleep(_IDLE_SECONDS)
    return 100 * (_ticks(supervisor) - before) / os.sysconf("SC_CLK_TCK") / _IDLE_SECONDS


def _ticks(supervisor: int) -> int:
    """User and system time of all (proc(5), /proc/PID/stat fields 14 and 15)."""
    stats = (Path(f"/proc/{pid}/stat").read_text(encoding="ascii") for pid in _family(supervisor))
    return sum(sum(map(int, stat.rpartition(") ")[2].split()[11:13])) for stat in stats)


def _deaths(bed: Bed, supervisor: int) -> list[float]:
    """Seconds from SIGKILL to the next new connection, death by death: the pauses grow."""
    name, port = atlas.ALLOWED_NAME, atlas.DISCARD_PORT
    bed.world.run([sys.executable, "-c", _UNTIL_IT_WORKS, name, str(port)])  # the name is resolved, and bound
    seconds = []
    for _ in range(3):
        address = [sys.executable, "-c", _UNTIL_IT_WORKS, atlas.ALLOWED.v4, str(port)]
        engine = _family(supervisor)[1]
        began = time.time()
        os.kill(engine, signal.SIGKILL)
        seconds.append(float(bed.world.run(address).stdout) - began)
    return seconds


def _day() -> Figure:
    """See `daemon_day`."""
    command = [sys.executable, "-m", "bench.daemon_day"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_DAY_PATIENCE)
    sizes = json.loads(done.stdout)["megabytes"]
    settled = sizes[len(sizes) // 2 :]
    against = f"{number(sizes[0])} MB empty, {number(sizes[-1])} MB after 2 million decisions"
    return Figure("a day's load: growth in its second half", settled[-1] - settled[0], "MB", at_most(_GROWTH), against)
