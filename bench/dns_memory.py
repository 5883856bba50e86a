"""`python -m bench.dns_memory [NAMES]`: does what the resolver keeps stay bounded, whatever is asked of it?

Resident memory after a first pass of churn and after all of it, in one process and without sockets: the caches, the
bindings and the budgets are the real ones, smaller where fewer names than a million are to fill them. Beside the
churn a flow is live: its binding must still be there.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from policy.bindings import ADDRESSES, Bindings
from policy.budget import Budgets
from policy.decide import Decision, decide
from policy.parse import parse
from policy.values import Flow, Proto, Query
from resolver import wire
from resolver.core import Core, Pending, ResolverConfig
from resolver.exchange import Answered
from resolver.judge import Plain
from resolver.message import Message, Record
from resolver.upstreams import parse_upstream
from resolver.wire import wire_name

_NAMES = 1_000_000
_PASSES = 5  # the first fills what there is to fill
_AT_ONCE = 250  # addresses in one answer; more than 256 are refused
_GROWTH = 2.0  # MB that the allocator may wander
_TTL = 3600
_STEP = 0.001  # seconds from one question to the next
_UPSTREAM = parse_upstream("192.0.2.53")
_CLIENT = Flow(Proto.UDP, IPv4Address("127.0.0.1"), 40000, IPv4Address("127.0.0.1"), 53)
_LIVE, _LIVE_ADDRESS = "live.cdn.example", IPv4Address("203.0.113.1")


@dataclass
class World:
    """A resolver's core that judges by a policy of one wildcard, and a flow that is live from the start."""

    budgets: Budgets | None  # None: what a wildcard's budget would refuse gets in as well
    bindings: Bindings
    config: ResolverConfig
    now: float = 0.0

    def __post_init__(self) -> None:
        self._policy = parse("*.cdn.example\n", "bench")
        self._core = Core(self.config, Plain(self._judge), self.bindings.bind)
        self.ask(_LIVE, [_LIVE_ADDRESS])

    def ask(self, name: str, addresses: list[IPv4Address], ttl: int = _TTL) -> None:
        """One question from a client, answered with these addresses if it goes upstream."""
        self.now += _STEP
        asked = wire_name(name)
        question = b"\0\7\1\0\0\1\0\0\0\0\0\0" + asked + wire.TYPE_CLASS.pack(wire.A, wire.IN)
        pending = self._core.receive(question, _CLIENT, self.now)
        if isinstance(pending, Pending):
            records = tuple(Record(asked, wire.A, ttl, each.packed) for each in addresses)
            answered = Answered(Message(0, wire.QR, asked, wire.A, records, ()), _UPSTREAM, 0.001)
            self._core.conclude(pending, answered, self.now)

    def live(self) -> bool:
        """A packet of the live flow: is its binding still there?"""
        return _LIVE in self.bindings.names(_LIVE_ADDRESS, self.now)

    def _judge(self, query: Query) -> Decision:
        decision = decide(self._policy, query, None, ())
        return decision if self.budgets is None else self.budgets.hold(query, decision, self.now)[0]


def main(arguments: list[str]) -> int:
    """Measure and print. Exit status 1 if memory grew after the first pass or the live flow lost its binding."""
    names = int(arguments[0]) if arguments else _NAMES
    few = max(1, names // 100)  # 10,000 of a million
    churns: tuple[tuple[str, Budgets | None, Callable[[World, int], Iterator[None]]], ...] = (
        (f"{names:,} names, an address each", None, lambda world, turn: _names(world, turn, names)),
        (f"{few:,} addresses on a name", None, lambda world, turn: _addresses(world, turn, few)),
        (f"{few:,} names on an address", None, lambda world, turn: _one_address(world, turn, few)),
        (f"{names:,} names against a budget", Budgets(), lambda world, turn: _names(world, turn, names)),
    )
    bounded = [_bounded(title, _world(budgets, names), churn) for title, budgets, churn in churns]
    return 0 if all(bounded) else 1


def _world(budgets: Budgets | None, names: int) -> World:
    scale = min(1.0, names / _NAMES)
    config = ResolverConfig((_UPSTREAM,), cache_octets=int(ResolverConfig(()).cache_octets * scale))
    return World(budgets, Bindings(int(ADDRESSES * scale)), config)


def _bounded(title: str, world: World, churn: Callable[[World, int], Iterator[None]]) -> bool:
    kept, resident = True, list[float]()
    for turn in range(_PASSES):
        for _ in churn(world, turn):
            kept = kept and world.live()
        gc.collect()
        resident.append(_resident())
    growth = max(resident[1:]) - resident[0]
    print(
        f"{title:36} {resident[0]:6.1f} MB after the first of {_PASSES} passes, {growth:+5.1f} MB after the rest;"
        f" live binding {'kept' if kept else 'LOST'}, {world.bindings.evicted:,} others pushed out"
    )
    return kept and growth <= _GROWTH


def _names(world: World, turn: int, count: int) -> Iterator[None]:
    share = count // _PASSES
    for number in range(turn * share, (turn + 1) * share):
        world.ask(f"n{number}.cdn.example", [IPv4Address(0x40000000 + number)])
        yield


def _addresses(world: World, turn: int, count: int) -> Iterator[None]:
    """The name's answer runs out and is asked for again, with other addresses each time."""
    first = 0x50000000 + turn * count
    for start in range(first, first + count, _AT_ONCE):
        addresses = [IPv4Address(each) for each in range(start, min(start + _AT_ONCE, first + count))]
        world.ask("many.cdn.example", addresses, ttl=1)
        world.now += 2
        yield


def _one_address(world: World, turn: int, count: int) -> Iterator[None]:
    for number in range(turn * count, (turn + 1) * count):
        world.ask(f"s{number}.cdn.example", [IPv4Address("203.0.113.2")])
        yield


def _resident() -> float:
    """MB, of this process: proc(5), /proc/PID/statm field 2."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
