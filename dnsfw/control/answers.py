"""A guard's answers about itself.

Law: reads what the engine's parts count, and turns it into messages. Changes nothing: what is to be changed is passed
on as `Orders`.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol

from bpf.source import OwnerSource
from dnsfw import __version__
from dnsfw.control import messages as m
from dnsfw.control.recent import Judged, Recent
from dnsfw.journal.lifecycle import Gap
from dnsfw.journal.records import SCHEMA, rfc3339
from dnsfw.journal.report import Facts, report
from dnsfw.journal.tally import Denial, Tally, because, remedy, what, who
from dnsfw.journal.writer import Journal
from dnsfw.policies.reading import Loaded
from firewall.overflow import LoadFile
from policy import Bindings, Flow, Query, Request
from resolver.server import Resolver
from resolver.upstreams import Standing

_DENIALS: Final = 10
_BINDINGS: Final = 5_000
_FLOWS: Final = 1_000


class Orders(Protocol):
    """What a question may set in motion. Each raises DnsfwError. `held` is what users are denied, in words."""

    held: tuple[str, ...]

    @property
    def health(self) -> Callable[[], Awaitable[m.HealthReport]]: ...
    @property
    def reload(self) -> Callable[[], Awaitable[m.ReloadReport]]: ...
    async def stop(self) -> m.Accepted: ...
    async def sudo(self, *, on: bool) -> m.HeldReport: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """What a guard is from its start on. `began` is seconds since the epoch; `seed` is what it signs with."""

    name: str
    audit: bool
    is_host: bool
    began: float
    lives: m.Lives = field(default_factory=m.Lives)
    gaps: tuple[Gap, ...] = ()
    seed: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class InForce:
    """The policy in force, changed by a reload. `since` is seconds since the epoch."""

    loaded: Loaded
    since: float
    generation: int = 0

    def files(self) -> Mapping[Path, bytes]:
        """What it is made of (Pinned.files)."""
        return self.loaded.pinned.files()

    def state(self) -> m.PolicyState:
        loaded = self.loaded
        pinned, rules = loaded.pinned, len(loaded.policy.rules)
        return m.PolicyState(pinned.file, pinned.sha256, rules, self.generation, rfc3339(self.since))


@dataclass(frozen=True, slots=True)
class Parts:
    """What of an engine is looked at."""

    tally: Tally
    journal: Journal
    resolver: Resolver
    recent: Recent
    owners: OwnerSource
    bindings: Bindings
    load: LoadFile
    policy: InForce
    proxy: Callable[[], m.ProxyState | None]
    trouble: Callable[[], list[str]]


class Answers:
    """`clock` is the bindings' own: monotonic seconds."""

    def __init__(self, identity: Identity, parts: Parts, orders: Orders, clock: Callable[[], float]) -> None:
        self._identity = identity
        self._parts = parts
        self._orders = orders
        self._clock = clock

    async def answer(self, question: m.Question) -> m.Answer:
        """Raises DnsfwError where there is none."""
        match question:
            case m.Status():
                return self.status()
            case m.Bindings():
                return self._bindings()
            case m.Flows():
                return self._flows()
            case m.Report():
                return self._statement()
            case m.Metrics():
                return await self._metrics()
            case _:
                return await self._order(question)

    def _order(self, question: m.Health | m.Reload | m.Stop | m.Sudo) -> Awaitable[m.Answer]:
        match question:
            case m.Health():
                return self._orders.health()
            case m.Reload():
                return self._orders.reload()
            case m.Stop():
                return self._orders.stop()
            case m.Sudo(on=on):
                return self._orders.sudo(on=on)

    def status(self) -> m.StatusReport:
        """The guard at a glance."""
        who_am_i, parts = self._identity, self._parts
        load = parts.load.read()
        return m.StatusReport(
            name=who_am_i.name,
            mode="audit" if who_am_i.audit else "enforce",
            guards="host" if who_am_i.is_host else "command",
            since=rfc3339(who_am_i.began),
            policy=parts.policy.state(),
            counts=m.Counts(parts.tally.allowed, parts.tally.denied, parts.tally.faults),
            decisions=_decisions(parts.tally),
            denials=tuple(map(_denial, parts.tally.most(_DENIALS))),
            resolver=asdict(parts.resolver.counters),
            queue=m.QueueState(load.waiting, load.lost),
            owners=m.OwnersState(parts.owners.attribution.value, dict(parts.owners.counts), parts.owners.evicted()),
            bindings=m.BindingsState(len(parts.bindings), parts.bindings.evicted),
            upstreams=tuple(map(_upstream, parts.resolver.standings())),
            journal=parts.journal.state(),
            lockdown=self._orders.held,
            lives=who_am_i.lives,
            versions=versions(),
            proxy=parts.proxy(),
        )

    async def _metrics(self) -> m.MetricsReport:
        """The library is loaded when it is first asked for, beside the loop: packets don't wait for that."""
        metrics = await asyncio.to_thread(import_module, "dnsfw.control.metrics")
        return m.MetricsReport(metrics.text(self.status()))

    def _statement(self) -> m.StatementReport:
        from dnsfw.journal.signing import sign  # noqa: PLC0415 - large, and seldom asked for

        identity, parts = self._identity, self._parts
        mode = "audit" if identity.audit else "enforce"
        span = (rfc3339(identity.began), rfc3339(time.time()))
        policy = parts.policy.loaded.pinned.sha256
        facts = Facts(mode, *span, policy, identity.gaps, tuple(parts.trouble()))
        return m.StatementReport(sign(report(parts.tally, facts), identity.seed).decode())

    def _flows(self) -> m.FlowsReport:
        judged = self._parts.recent.latest_first()
        return m.FlowsReport(tuple(map(_flow, judged[:_FLOWS])), max(0, len(judged) - _FLOWS))

    def _bindings(self) -> m.BindingsReport:
        now = self._clock()
        live = [
            m.BindingState(str(binding.address), binding.name, round(binding.expires_at - now, 1))
            for binding in self._parts.bindings.live(now)
        ]
        live.sort(key=lambda binding: (binding.name, binding.address))
        return m.BindingsReport(tuple(live[:_BINDINGS]), max(0, len(live) - _BINDINGS))


def versions() -> dict[str, str]:
    """Of what a report of a fault should name."""
    return {
        "dnsfw": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "journal": str(SCHEMA),
        "control": str(m.VERSION),
    }


def _decisions(tally: Tally) -> tuple[m.DecisionCount, ...]:
    words = {Query: "query", Flow: "flow", Request: "request"}
    counted = [
        m.DecisionCount(words.get(kind, "unreadable"), action.value, reason.value, count)
        for (kind, action, reason), count in tally.kinds.items()
    ]
    return tuple(sorted(counted, key=lambda each: (each.subject, each.decision, each.reason)))


def _denial(denial: Denial) -> m.DenialState:
    first = denial.first
    return m.DenialState(denial.count, what(first), who(first.owner), because(first), remedy(first))


def _upstream(standing: Standing) -> m.UpstreamState:
    server = str(standing.upstream)
    if standing.silent:
        return m.UpstreamState(server, "silent", None)
    return m.UpstreamState(server, "untried" if standing.rtt is None else "answers", standing.rtt)


def _flow(judged: Judged) -> m.FlowState:
    entry = judged.latest
    flow, owner, rule = entry.subject, entry.owner, entry.decision.rule
    if not isinstance(flow, Flow):
        raise TypeError("only flows are remembered as flows")
    return m.FlowState(
        proto=flow.proto,
        dst=str(flow.dst),
        dport=flow.dport,
        names=entry.names,
        exe="" if owner is None else owner.exe,
        pid=None if owner is None else owner.pid,
        decision=entry.decision.action.value,
        rule="" if rule is None else f"{rule.source.file}:{rule.source.line}",
        count=judged.count,
        last=rfc3339(judged.when),
    )
