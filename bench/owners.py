"""Attribution: what a look-up costs the guard, what the hooks cost a program, and how many owners are known."""

from __future__ import annotations

import socket
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
from bench.floor import empty_hooks
from bench.programs import compiled
from bench.sides import DISCARD, FAR_END, Side, side
from bpf.cgroup import CgroupPaths
from bpf.compile import Extent, Judged
from bpf.loader import Attached, start_loading
from bpf.owners import Owners, Sources
from bpf.sockdiag import SockDiag
from dnsfw.machine import cgroups
from dnsfw.playground import atlas
from firewall.marks import MASK, Mark
from firewall.ruleset import JUDGED
from policy.values import Flow, Proto, address

_LOADS, _LOOK_UPS = 5, 20_000
_CALLS, _ROUNDS = 1_000_000, 400  # of each kind in all; each side's share of a round is made at once
_PROCESSES, _A_SECOND = 20_000, 2_000
_PATIENCE = 300.0  # seconds for any one program
_CLOSED_PORT = 1
_NOBODY = "192.0.2.77"  # on the own link: what a connect costs there is the process's alone
# A guarded program's calls, and rounds of them: connections are all judged, datagrams but for the first have a lease.
_GUARDED = {"connect": (100, 100), "sendto": (25_000, 20)}

_STAY = """
import socket, sys
to = (sys.argv[1], int(sys.argv[2]))
socks = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_DGRAM)]
for sock in socks[:2]: sock.connect(to)
socks[1].send(b"x")
socks[2].sendto(b"x", to)
print(*socks[0].getsockname(), socks[1].getsockname()[1], socks[2].getsockname()[1], flush=True)
sys.stdin.read()
"""


def measure(bed: Bed) -> list[Figure]:
    with ExitStack() as stack:
        watched, floor, beside = (stack.enter_context(side(name)) for name in ("watched", "floor", "beside"))
        figures = [_load(watched)]
        with floor.network.entered():
            stack.enter_context(empty_hooks(floor.cgroup))
        calls, shortlived = (stack.enter_context(compiled(name)) for name in ("calls", "shortlived"))
        with _attached(watched) as attached:
            figures += _look_up(watched, attached)
            for call in ("sendto", "connect"):
                figures += _cost(bed, calls, call, (watched, floor, beside))
            figures += _short_lived(shortlived, watched, attached)
        return figures


@contextmanager
def _attached(side: Side) -> Iterator[Attached]:
    with start_loading(side.cgroup, _extent(side)).finish(20) as attached:
        if not attached.sees_senders:
            raise BenchError("this kernel shows no packets to BPF: other hooks would be measured than the floor's")
        yield attached


def _extent(side: Side) -> Extent:
    return Extent(judged=Judged(Mark.JUDGE, MASK, JUDGED, side.network.fd))


def _load(side: Side) -> Figure:
    def once() -> float:
        started = time.perf_counter()
        start_loading(side.cgroup, _extent(side)).finish(20).close()
        return time.perf_counter() - started

    runs = tuple(once() for _ in range(_LOADS))
    return Figure("owners: load and attach", median(runs), "s", at_most(0.6), "", runs)


def _look_up(side: Side, attached: Attached) -> Iterator[Figure]:
    """One process's three kinds of flow, again and again: the kernel is asked each time, the process is known."""
    with side.far.entered():
        listener = socket.create_server((FAR_END, DISCARD))
    command = [sys.executable, "-I", "-S", "-c", _STAY, FAR_END, str(DISCARD)]
    with listener, _started(side, command) as process:
        src, *ports = process.says.readline().split()
        tcp, connected, unconnected = (
            Flow(proto, address(src), int(port), address(FAR_END), DISCARD)
            for proto, port in zip((Proto.TCP, Proto.UDP, Proto.UDP), ports, strict=True)
        )
        with _owners(side, attached) as owners:
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


def _cost(bed: Bed, program: Path, call: str, sides: tuple[Side, Side, Side]) -> Iterator[Figure]:
    """The same calls watched, with empty programs on the same hooks, and with none, where nothing else is done with
    their packets; and what the difference is to a guarded program, whose packets are judged."""
    share = _CALLS // _ROUNDS // len(sides)
    rounds = _rounds([str(program), FAR_END, str(_CLOSED_PORT), call, str(share), str(_ROUNDS)], sides)
    watched, floor, free = (median(side) for side in zip(*rounds, strict=True))
    added = median(one - other for one, _, other in rounds)
    ratios, floors = tuple(one / other for one, _, other in rounds), [empty / other for _, empty, other in rounds]
    each = f"{number(watched)} µs watched, {number(floor)} with empty hooks, {number(free)} with none"
    yield Figure(f"{call}() bare, with attribution", median(ratios), "times", None, each, ratios)
    yield Figure(f"{call}() bare, with empty hooks: the floor", median(floors), "times", None, f"{_CALLS:,} calls")
    words = [atlas.ALLOWED.v4, str(_CLOSED_PORT), call, *map(str, _GUARDED[call])]
    said = bed.run([str(program), *words], guarded=True)
    guarded = median(map(float, said.split()))
    each = f"{number(added)} µs of {number(guarded)} µs"
    yield Figure(
        f"{call}() of a guarded program, with attribution", guarded / (guarded - added), "times", at_most(1.03), each
    )


def _rounds(command: list[str], sides: tuple[Side, ...]) -> list[tuple[float, ...]]:
    words = [word for side in sides for word in side.words()]
    said = subprocess.run([*command, *words], stdout=subprocess.PIPE, text=True, check=True, timeout=_PATIENCE).stdout
    return [tuple(map(float, line.split())) for line in said.splitlines()]


def _short_lived(program: Path, side: Side, attached: Attached) -> Iterator[Figure]:
    """Looked up as they come, as packets are."""
    words = [str(program), _NOBODY, str(DISCARD), str(_PROCESSES), str(_A_SECOND)]
    with _started(side, words) as driver, _owners(side, attached) as owners:
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
    flow = Flow(Proto.TCP, address(src), int(port), address(_NOBODY), DISCARD)
    owner = owners.of(flow)
    return owner is not None and owner.pid == int(pid) and owner.complete


@contextmanager
def _owners(side: Side, attached: Attached) -> Iterator[Owners]:
    with side.network.entered():
        diag = SockDiag()
    with diag, CgroupPaths(cgroups.find_root()) as paths:
        yield Owners(Sources(attached, diag, paths))


@dataclass(frozen=True, slots=True)
class Running:
    pid: int
    says: IO[str]


@contextmanager
def _started(side: Side, command: list[str]) -> Iterator[Running]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, preexec_fn=side.join) as process:  # noqa: PLW1509 - one thread
        if process.stdout is None or process.stdin is None:
            raise BenchError("Popen made no pipes")
        yield Running(process.pid, process.stdout)
        process.stdin.close()
