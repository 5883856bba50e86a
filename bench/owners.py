"""Attribution: what a look-up costs the guard, what the hooks cost a program, and how many owners are known."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO

from bench.bed import Bed, BenchError
from bench.figure import Figure, at_least, at_most, number
from bpf.cgroup import CgroupPaths
from bpf.loader import Attached, start_loading
from bpf.owners import Owners, Sources
from bpf.sockdiag import SockDiag
from dnsfw import cgroups
from dnsfw.playground import atlas
from policy.values import Flow, Proto, address

_LOADS, _LOOK_UPS = 5, 20_000
_ROUNDS, _SENDS, _CONNECTS = 5, 100_000, 3000
_PROCESSES = 4000

# Run in the watched cgroup or beside it: HOST PORT COUNT; each says its own figure. A TCP connect goes to a closed
# port: the other side's kernel answers, and no server's pace is measured.
_TIMED = """
import socket, struct, sys, time
to, closed, count = (sys.argv[1], int(sys.argv[2])), (sys.argv[1], 1), int(sys.argv[3])
def timed(once):
    for _ in range(50): once()
    started = time.perf_counter()
    for _ in range(count): once()
    print((time.perf_counter() - started) / count * 1e6)
"""
_SENDTO = (
    _TIMED
    + """
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
timed(lambda: udp.sendto(b"x", to))
"""
)
_CONNECT = (
    _TIMED
    + """
def once():
    with socket.socket() as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        tcp.connect_ex(closed)
timed(once)
"""
)
_STAY = """
import socket, sys
to = (sys.argv[1], int(sys.argv[2]))
socks = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_DGRAM)]
for sock in socks[:2]: sock.connect(to)
socks[2].sendto(b"x", to)
print(*socks[0].getsockname(), socks[1].getsockname()[1], socks[2].getsockname()[1], flush=True)
sys.stdin.read()
"""
# Each process connects and exits at once; its pid and port go to the bench, which may read them later.
_SHORT_LIVED = """
import os, socket, sys
to = (sys.argv[1], int(sys.argv[2]))
os.fork()  # two of us do the same
for _ in range(int(sys.argv[3]) // 2):
    pid = os.fork()
    if pid == 0:
        tcp = socket.socket(); tcp.setblocking(False); tcp.connect_ex(to)
        os.write(1, b"%d %s %d\\n" % (os.getpid(), tcp.getsockname()[0].encode(), tcp.getsockname()[1]))
        os._exit(0)
    os.waitpid(pid, 0)
"""


def measure(bed: Bed) -> list[Figure]:
    with ExitStack() as stack:
        watched = stack.enter_context(cgroups.cgroup(f"dnsfw-bench-{os.getpid()}"))
        beside = stack.enter_context(cgroups.cgroup(f"dnsfw-bench-{os.getpid()}-beside"))
        figures = [_load(watched)]
        attached = stack.enter_context(start_loading(watched).finish(20))
        figures += _look_up(bed, watched, attached)
        figures.append(_cost(bed, (watched, beside), "sendto()", _SENDTO, _SENDS))
        figures.append(_cost(bed, (watched, beside), "TCP connect()", _CONNECT, _CONNECTS))
        return [*figures, *_short_lived(bed, watched, attached)]


def _load(cgroup: Path) -> Figure:
    def once() -> float:
        started = time.perf_counter()
        start_loading(cgroup).finish(20).close()
        return time.perf_counter() - started

    runs = tuple(once() for _ in range(_LOADS))
    return Figure("owners: load and attach", median(runs), "s", at_most(0.6), "", runs)


def _look_up(bed: Bed, cgroup: Path, attached: Attached) -> Iterator[Figure]:
    """One process's three kinds of flow, again and again: the kernel is asked each time, the process is known."""
    with _running(bed, cgroup, _STAY) as process:
        src, *ports = process.says.readline().split()
        tcp, connected, unconnected = (
            Flow(proto, address(src), int(port), address(atlas.ALLOWED.v4), atlas.DISCARD_PORT)
            for proto, port in zip((Proto.TCP, Proto.UDP, Proto.UDP), ports, strict=True)
        )
        with _owners(process.pid, attached) as owners:
            yield _one_look_up(owners, "TCP", tcp, process.pid)
            yield _one_look_up(owners, "connected UDP", connected, process.pid)
            yield _one_look_up(owners, "unconnected UDP", unconnected, process.pid)


def _one_look_up(owners: Owners, kind: str, flow: Flow, pid: int) -> Figure:
    owner = owners.of(flow)
    if owner is None or owner.pid != pid:
        raise BenchError(f"the owner of a {kind} flow is {owner}")
    times = []
    for _ in range(_LOOK_UPS):
        started = time.perf_counter()
        owners.of(flow)
        times.append(time.perf_counter() - started)
    return Figure(f"owner of a {kind} flow, p50", median(times) * 1e6, "µs", at_most(15))


def _cost(bed: Bed, groups: tuple[Path, Path], call: str, script: str, count: int) -> Figure:
    """The same program in a watched cgroup and in one that isn't. Rounds alternate."""
    rounds = [tuple(_timed(bed, group, script, count) for group in groups) for _ in range(_ROUNDS)]
    ratios = tuple(watched / free for watched, free in rounds)
    watched, free = (median(side) for side in zip(*rounds, strict=True))
    return Figure(
        f"{call} with attribution",
        median(ratios),
        "times",
        at_most(1.03),
        f"{number(watched)} / {number(free)} µs",
        ratios,
    )


def _timed(bed: Bed, cgroup: Path, script: str, count: int) -> float:
    with _running(bed, cgroup, script, str(count)) as process:
        return float(process.says.readline())


def _short_lived(bed: Bed, cgroup: Path, attached: Attached) -> Iterator[Figure]:
    """Looked up as they come, as packets are."""
    with (
        _running(bed, cgroup, _SHORT_LIVED, str(_PROCESSES)) as driver,
        _owners(driver.pid, attached) as owners,
    ):
        started = time.perf_counter()
        known = sum(_is_known(owners, *line.split()) for line in driver.says)
        rate = _PROCESSES / (time.perf_counter() - started)
        against = f"{rate:,.0f} a second; {dict(owners.counts)}"
    yield Figure("owners known, of processes that connect and exit", known / _PROCESSES, "", at_least(0.999), against)


def _is_known(owners: Owners, pid: str, src: str, port: str) -> bool:
    flow = Flow(Proto.TCP, address(src), int(port), address(atlas.ALLOWED.v4), atlas.DISCARD_PORT)
    owner = owners.of(flow)
    return owner is not None and owner.pid == int(pid) and owner.complete


@contextmanager
def _owners(process: int, attached: Attached) -> Iterator[Owners]:
    """Owners in the network namespace of a process."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    with Path(f"/proc/{process}/ns/net").open() as there:
        os.setns(there.fileno(), os.CLONE_NEWNET)
        diag = SockDiag()
        os.setns(home, os.CLONE_NEWNET)
    os.close(home)
    with diag, CgroupPaths(cgroups.find_root()) as paths:
        yield Owners(Sources(attached, diag, paths))


@dataclass(frozen=True, slots=True)
class Running:
    pid: int
    says: IO[str]


@contextmanager
def _running(bed: Bed, cgroup: Path, script: str, *arguments: str) -> Iterator[Running]:
    command = [sys.executable, "-I", "-S", "-c", script, atlas.ALLOWED.v4, str(atlas.DISCARD_PORT), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with bed.world.popen(command, **pipes, preexec_fn=lambda: cgroups.join(cgroup)) as process:
        if process.stdout is None or process.stdin is None:
            raise BenchError("Popen made no pipes")
        yield Running(process.pid, process.stdout)
        process.stdin.close()
