"""What is judged: dnsfw's own resolver, and any forwarder that runs already.

Law: one class a kind, each an async context manager that is serving once entered. Peers that are started for the
occasion stand in `peers`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import ClassVar, Protocol, Self

from dnsfw.engine.gate import Gate
from dnsfw.poison.scenario import FlowCheck, Scenario, written_out
from dnsfw.poison.upstream import Place
from dnsfw.poison.verdict import Probe, Standard
from policy import Action, Address, Bindings, Flow, Proto, Query, address
from policy.parse import parse
from resolver.core import ResolverConfig
from resolver.listeners import make_listeners
from resolver.server import Resolver
from resolver.upstreams import parse_upstream

_PROTOS = {"tcp": Proto.TCP, "udp": Proto.UDP, "icmp": Proto.ICMP}
_CLIENT = address("127.0.0.1")


class Target(Protocol):
    """A forwarder that sends its questions to the bench's upstream."""

    standard: ClassVar[Standard]

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_: object) -> None: ...

    def probe(self) -> Probe | None:
        """What it has bound, if it knows what that is."""

    def trouble(self) -> Sequence[str]:
        """What it says of itself: errors of its own, or that it has ended."""


class Dnsfw:
    """The resolver that `dnsfw run` has, with gate, policy and bindings, its times and bounds as shipped."""

    standard: ClassVar = Standard(frozenset({"policy", "bindings"}), owes_all=True)

    def __init__(self, scenario: Scenario, zone: str, place: Place) -> None:
        self._flows, self._place = scenario.bound.flows, place
        lines = [line.format(zone=zone.removesuffix(".")) for line in written_out(scenario.policy)]
        policy = parse("\n".join(lines), f"{scenario.id}.toml")
        self._ahead = 0.0
        self._bindings = Bindings()
        self._bound: dict[str, set[Address]] = {}
        self._faults: list[str] = []
        self._gate = Gate(policy, self._bindings, lambda _: None, lambda _: None, self._now)
        upstream = parse_upstream("{}:{}".format(*place.upstream))
        self._resolver = Resolver(ResolverConfig((upstream,)), self._gate, self._bind, time.monotonic, self._fault)

    async def __aenter__(self) -> Self:
        listeners = make_listeners(self._place.target[1])
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._faults.append(str(context["message"])))
        await self._resolver.serve(loop, listeners.udp, listeners.tcp)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._resolver.close()

    def probe(self) -> Probe:
        """Read from the bindings themselves, not from what was once put into them."""
        addresses = {name: frozenset(each.packed for each in self._alive(name)) for name in self._bound}
        known = {each for found in self._bound.values() for each in found}
        bound = frozenset(each.packed for each in known if self._bindings.names(each, self._now()))
        return Probe(addresses, bound, len(self._bindings), [self._verdict(flow) for flow in self._flows])

    def trouble(self) -> Sequence[str]:
        return [f"an error of its own: {fault}" for fault in self._faults]

    def _alive(self, name: str) -> list[Address]:
        return [each for each in self._bound[name] if name in self._bindings.names(each, self._now())]

    def _verdict(self, flow: FlowCheck) -> str:
        proto = _PROTOS[flow.proto]
        ports = (0, 0) if proto is Proto.ICMP else (40000, flow.port)
        self._ahead = flow.after
        verdict, _ = self._gate.open(Flow(proto, _CLIENT, ports[0], address(flow.to), ports[1]))
        self._ahead = 0.0
        return str(Action.ALLOW if verdict is Action.PEEK else verdict)  # what is said to it is another matter

    def _now(self) -> float:
        return time.monotonic() + self._ahead

    def _bind(self, name: str, answers: Sequence[tuple[Address, float]], now: float) -> None:
        self._bound.setdefault(name, set()).update(each for each, _ in answers)
        self._bindings.bind(name, answers, now)

    def _fault(self, error: BaseException, query: Query | None) -> None:
        self._faults.append(f"{type(error).__name__}: {error} ({query.name if query else 'no query'})")


class External:
    """A forwarder that somebody else started; it must forward to the bench's upstream."""

    standard: ClassVar = Standard()

    def __init__(self, _scenario: Scenario, _zone: str, _place: Place) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def probe(self) -> None:
        return None

    def trouble(self) -> Sequence[str]:
        return ()
