"""The resolver alone beside dnsmasq and unbound: cached and forwarded answers, what a question costs, none lost.

All in one run, on the loopback of a network namespace of its own, policy and journal on. `python -m bench.resolver
SECONDS` only looks for losses, for so long.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Self

from bench import dns_bed
from bench.bed import Bed
from bench.dns_bed import BARE, DNSFW, DNSMASQ, UNBOUND, UPSTREAM, Load
from bench.figure import Figure, at_least, at_most, number
from dnsfw.machine.namespaces import NetworkNamespace

_ROUNDS, _SECONDS = 3, 2
_CACHED, _FORWARDED, _SINGLY = 100, 15_000, 1_500  # different names
_PEERS = {DNSMASQ: "dnsmasq", UNBOUND: "unbound"}
_STEADY, _STEADY_SECONDS = 20_000, 10  # questions a second; for how long


def measure(_bed: Bed) -> list[Figure]:
    with _Street() as street:
        cached, forwarded = [*street.cached()], [*street.forwarded()]
        return [*_cached(cached), *_forwarded(forwarded), *_added(street), street.steady(_STEADY_SECONDS)]


@dataclass(frozen=True, slots=True)
class Run:
    """One program under load: what dnsperf saw, and the program's CPU time a question, in microseconds."""

    load: Load
    micros: float


type Round = dict[int, Run]  # by port


class _Street(ExitStack):
    """The programs, all up; each round asks all of them, so that a busy moment of the machine meets each alike."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.enter_context(self.enter_context(NetworkNamespace()).entered())
        self._scratch = Path(self.enter_context(tempfile.TemporaryDirectory()))
        self.enter_context(dns_bed.child(dns_bed.serve_upstream, UPSTREAM))
        return self

    def cached(self) -> Iterator[Round]:
        with ExitStack() as programs:
            pids = {
                DNSFW: programs.enter_context(dns_bed.child(dns_bed.serve_dnsfw, DNSFW)),
                DNSMASQ: programs.enter_context(dns_bed.started(dns_bed.dnsmasq(1000), DNSMASQ)),
            }
            if shutil.which("unbound"):  # not installed by us: its package would begin to serve port 53
                pids[UNBOUND] = programs.enter_context(dns_bed.started(dns_bed.unbound(self._scratch), UNBOUND))
            questions = self._questions("c", _CACHED)
            for port in pids:
                dns_bed.dnsperf(port, questions, "-n", "2")
            for _ in range(_ROUNDS):
                yield {port: _under_load(port, pid, questions, "-l", str(_SECONDS)) for port, pid in pids.items()}

    def forwarded(self) -> Iterator[Round]:
        """Each name is asked for once."""
        with ExitStack() as programs:
            pids = {
                DNSFW: programs.enter_context(dns_bed.child(dns_bed.serve_dnsfw, DNSFW)),
                DNSMASQ: programs.enter_context(dns_bed.started(dns_bed.dnsmasq(0), DNSMASQ)),
                BARE: programs.enter_context(dns_bed.child(dns_bed.serve_bare, BARE)),
            }
            for turn in range(_ROUNDS):
                questions = self._questions(f"f{turn}-", _FORWARDED)
                yield {port: _under_load(port, pid, questions, "-n", "1") for port, pid in pids.items()}

    def singly(self) -> Iterator[dict[int, list[float]]]:
        """How long each of many questions takes, one after the other, in microseconds."""
        with dns_bed.child(dns_bed.serve_dnsfw, DNSFW), dns_bed.child(dns_bed.serve_bare, BARE):
            for turn in range(_ROUNDS):
                yield {port: _one_by_one(port, f"s{turn}") for port in (UPSTREAM, BARE, DNSFW)}

    def steady(self, seconds: int) -> Figure:
        questions = self._questions("c", _CACHED)
        with dns_bed.child(dns_bed.serve_dnsfw, DNSFW) as pid:
            dns_bed.dnsperf(DNSFW, questions, "-n", "2")
            run = _under_load(DNSFW, pid, questions, "-l", str(seconds), "-Q", str(_STEADY))
        against = f"{run.load.answered:,} answered in {seconds} s, {number(run.load.rate)} a second"
        name = f"lost of {_STEADY:,} questions a second"
        return Figure(name, run.load.lost, "", at_most(0), f"{against}; {number(run.micros)} µs CPU each")

    def _questions(self, prefix: str, count: int) -> Path:
        path = self._scratch / f"questions-{prefix}"
        path.write_text("".join(f"{prefix}{each}.{dns_bed.ZONE} A\n" for each in range(count)), encoding="ascii")
        return path


def _under_load(port: int, pid: int, questions: Path, *options: str) -> Run:
    before = dns_bed.cpu_seconds(pid)
    load = dns_bed.dnsperf(port, questions, "-q", "100", *options)
    return Run(load, (dns_bed.cpu_seconds(pid) - before) / load.answered * 1e6)


def _cached(rounds: list[Round]) -> Iterator[Figure]:
    for port in rounds[0].keys() - {DNSFW}:
        peer = _PEERS[port]
        faster = tuple(each[DNSFW].load.rate / each[port].load.rate for each in rounds)
        dearer = tuple(each[DNSFW].micros / each[port].micros for each in rounds)
        rates, costs = _medians(rounds, DNSFW, port)
        yield Figure(
            f"cached answers, beside {peer}", median(faster), "of it", at_least(1), f"{rates} a second", faster
        )
        yield Figure(f"CPU of one, beside {peer}", median(dearer), "of it", at_most(1.3), f"{costs} µs", dearer)


def _forwarded(rounds: list[Round]) -> Iterator[Figure]:
    """Beside it, what Python itself leaves: a loop of fresh sockets that checks, keeps and judges nothing."""
    ratios = tuple(each[DNSFW].load.rate / each[DNSMASQ].load.rate for each in rounds)
    rates, costs = _medians(rounds, DNSFW, DNSMASQ, BARE)
    against = f"{rates} a second (the last: a bare loop of fresh sockets in Python), {costs} µs CPU each"
    yield Figure("forwarded answers, beside dnsmasq", median(ratios), "of it", at_least(0.5), against, ratios)


def _medians(rounds: list[Round], *ports: int) -> tuple[str, str]:
    """Rates and costs in words, in the order of the ports."""
    rates = [number(median(each[port].load.rate for each in rounds)) for port in ports]
    costs = [number(median(each[port].micros for each in rounds)) for port in ports]
    return " / ".join(rates), " / ".join(costs)


def _added(street: _Street) -> Iterator[Figure]:
    """Beside it, what two more hops between processes take on this machine, whoever forwards."""
    rounds = [*street.singly()]
    for name, at, most in (("p50", 49, 150), ("p99", 98, 1000)):
        cuts = [{port: quantiles(times, n=100)[at] for port, times in each.items()} for each in rounds]
        added = tuple(each[DNSFW] - each[UPSTREAM] for each in cuts)
        straight, bare = (number(median(each[port] for each in cuts)) for port in (UPSTREAM, BARE))
        against = f"{straight} µs straight from the upstream, {bare} µs through a bare loop of fresh sockets in Python"
        yield Figure(f"added to a forwarded question, {name}", median(added), "µs", at_most(most), against, added)


def _one_by_one(port: int, prefix: str) -> list[float]:
    times = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect(("127.0.0.1", port))
        for count in range(_SINGLY):
            name = f"{prefix}-{count:04}".encode()
            question = count.to_bytes(2) + b"\1\0\0\1\0\0\0\0\0\0" + bytes((len(name),)) + name + dns_bed.IN_ZONE
            before = time.perf_counter()
            client.send(question)
            client.recv(4096)
            times.append((time.perf_counter() - before) * 1e6)
    return times


def main(seconds: int) -> int:
    with _Street() as street:
        figure = street.steady(seconds)
    print(figure)
    return 0 if figure.value == 0 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60))
