"""A policy's time to load, and a decision's, at 10, 1,000 and 10,000 rules of every kind."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from statistics import median
from time import perf_counter

from bench.bed import Bed
from bench.figure import Figure, at_most, number
from policy import Flow, Owner, Policy, Query, Request, Subject, decide
from policy.parse import parse

_SIZES = (10, 1_000, 10_000)
_DECISIONS = 20_000
_LINES = (
    "host{0}.example{1}.com",
    "*.zone{0}.net:443|8443 exe=/usr/bin/git",
    "10.{2}.{3}.0/24:22",
    "https://api{1}.example.org/repos/o{0}/*",
    "derp{0}*.relay.example",
    "!bad{0}.example",
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One question to a policy."""

    subject: Subject
    names: tuple[str, ...]


def text(size: int) -> str:
    lines = (_LINES[i % len(_LINES)].format(i, i % 97, i // 256 % 256, i % 256) for i in range(size))
    return "\n".join(lines)


def trials(size: int, count: int) -> Iterator[Trial]:
    """Queries, flows and requests that meet rules and that miss them, spread over the whole policy."""
    chance = random.Random(3)
    for _ in range(count):
        i = chance.randrange(size)
        host = chance.choice(
            (
                f"host{i}.example{i % 97}.com",
                f"a.b.zone{i}.net",
                f"derp{i}x.relay.example",
                f"bad{i}.example",
                "no.where",
            )
        )
        address = IPv4Address(f"10.{i // 256 % 256}.{i % 256}.7")
        flow = Flow(6, IPv4Address("192.0.2.1"), 40000, address, chance.choice((22, 443)))
        api = f"api{i % 97}.example.org"
        yield chance.choice(
            (
                Trial(Query(host, 1, flow), ()),
                Trial(flow, (host,)),
                Trial(flow, ()),
                Trial(Request(flow, "https", api, "GET", f"/repos/o{i}/tags"), (api,)),
            )
        )


def load(size: int) -> tuple[Policy, float]:
    """The policy and the seconds its parsing and indexing took: the best of three."""
    source, took = text(size), []
    for _ in range(3):
        gc.collect()
        start = perf_counter()
        policy = parse(source, "bench")
        took.append(perf_counter() - start)
    return policy, min(took)


def decisions(policy: Policy, size: int) -> list[float]:
    """Microseconds of each of many decisions, all different, one after another."""
    owner = Owner(100, 1, 1000, "/usr/bin/git", ("git", "fetch"), "/")
    took = []
    for trial in list(trials(size, _DECISIONS)):
        start = perf_counter()
        decide(policy, trial.subject, owner, trial.names)
        took.append((perf_counter() - start) * 1e6)
    return took


def measure(_bed: Bed) -> list[Figure]:
    figures = []
    for size in _SIZES:
        policy, seconds = load(size)
        took = sorted(decisions(policy, size))
        tail = f"{len(took):,} different decisions; 99 in 100 within {number(took[len(took) * 99 // 100])} µs"
        whole = at_most(1.0) if size == max(_SIZES) else None
        figures += [
            Figure(f"policy, load {size:,} rules", seconds, "s", whole, f"{number(seconds / size * 1e6)} µs a rule"),
            Figure(f"policy, decide among {size:,} rules", median(took), "µs", at_most(10), tail),
        ]
    return figures
