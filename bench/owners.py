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
from tempfile import TemporaryDirectory
from typing import IO

from bench.bed import Bed, BenchError
from bench.figure import Figure, at_least, at_most, number
from bench.floor import empty_hooks
from bpf.cgroup import CgroupPaths
from bpf.loader import Attached, start_loading
from bpf.owners import Owners, Sources
from bpf.sockdiag import SockDiag
from dnsfw.machine import cgroups
from dnsfw.playground import atlas
from policy.values import Flow, Proto, address

_LOADS, _LOOK_UPS = 5, 20_000
_CALLS, _ROUNDS = 1_000_000, 400  # of each kind in all; each cgroup's share of a round is made at once
_PROCESSES, _A_SECOND = 20_000, 2_000
_PATIENCE = 300.0  # seconds for any one program
_CLOSED_PORT = 1
_NOBODY = "192.0.2.77"  # on the laptop's own link: what a connect costs there is the process's alone

_STAY = """
import socket, sys
to = (sys.argv[1], int(sys.argv[2]))
socks = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_DGRAM)]
for sock in socks[:2]: sock.connect(to)
socks[2].sendto(b"x", to)
print(*socks[0].getsockname(), socks[1].getsockname()[1], socks[2].getsockname()[1], flush=True)
sys.stdin.read()
"""


def measure(bed: Bed) -> list[Figure]:
    with ExitStack() as stack:
        watched, floor, beside = (
            stack.enter_context(cgroups.cgroup(f"dnsfw-bench-{os.getpid()}-{name}"))
            for name in ("watched", "floor", "beside")
        )
        figures = [_load(watched)]
        attached = stack.enter_context(start_loading(watched).finish(20))
        figures += _look_up(bed, watched, attached)
        stack.enter_context(empty_hooks(floor))
        calls, shortlived = (_compiled(stack, name) for name in ("calls", "shortlived"))
        for call in ("sendto", "connect"):
            figures += _cost(bed, calls, call, (watched, floor, beside))
        return [*figures, *_short_lived(bed, shortlived, watched, attached)]


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


def _compiled(stack: ExitStack, name: str) -> Path:
    """A program of this folder's, which would cost more in Python than what it measures."""
    folder = Path(stack.enter_context(TemporaryDirectory()))
    source, made = Path(__file__).with_name(f"{name}.c"), folder / name
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", str(made), str(source)], check=True)
    return made


def _cost(bed: Bed, program: Path, call: str, groups: tuple[Path, Path, Path]) -> Iterator[Figure]:
    """The same calls in a watched cgroup, in one with empty programs on the same hooks, and in one with none."""
    share = _CALLS // _ROUNDS // len(groups)
    words = [call, str(share), str(_ROUNDS), *map(str, groups)]
    said = _output(bed, [str(program), atlas.ALLOWED.v4, str(_CLOSED_PORT), *words])
    rounds = [tuple(map(float, line.split())) for line in said.splitlines()]
    watched, floor, free = (median(side) for side in zip(*rounds, strict=True))
    ratios = tuple(one / other for one, _, other in rounds)
    least = median(empty / other for _, empty, other in rounds)
    each = f"{number(watched)} µs watched, {number(floor)} with empty hooks, {number(free)} with none"
    yield Figure(f"{call}() with attribution", median(ratios), "times", at_most(1.03), each, ratios)
    yield Figure(f"{call}() with empty hooks: the floor", least, "times", None, f"{share * _ROUNDS:,} calls each")


def _output(bed: Bed, command: list[str]) -> str:
    with bed.world.popen(command, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=_PATIENCE)
    if process.returncode != 0:
        raise BenchError(f"{command[0]} ended with {process.returncode}")
    return str(said)


def _short_lived(bed: Bed, program: Path, cgroup: Path, attached: Attached) -> Iterator[Figure]:
    """Looked up as they come, as packets are."""
    words = [str(program), _NOBODY, str(atlas.DISCARD_PORT), str(_PROCESSES), str(_A_SECOND)]
    with _started(bed, cgroup, words) as driver, _owners(driver.pid, attached) as owners:
        known, rate = 0, 0.0
        for line in driver.says:
            pid, where, port = line.split()
            if pid == "done":
                rate = float(where)
                break
            known += _is_known(owners, pid, where, port)
        against = f"{rate:,.0f} a second; {dict(owners.counts)}; lost: {owners.evicted()}"
    yield Figure("owners known, of processes that connect and exit", known / _PROCESSES, "", at_least(0.999), against)


def _is_known(owners: Owners, pid: str, src: str, port: str) -> bool:
    flow = Flow(Proto.TCP, address(src), int(port), address(_NOBODY), atlas.DISCARD_PORT)
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
    with _started(bed, cgroup, command) as running:
        yield running


@contextmanager
def _started(bed: Bed, cgroup: Path, command: list[str]) -> Iterator[Running]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with bed.world.popen(command, **pipes, preexec_fn=lambda: cgroups.join(cgroup)) as process:
        if process.stdout is None or process.stdin is None:
            raise BenchError("Popen made no pipes")
        yield Running(process.pid, process.stdout)
        process.stdin.close()
