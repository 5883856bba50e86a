"""A guard in force: the table, the engine that it depends on, and the engine after that one.

Law: what `run` and `up` have in common, seen from the supervisor. Closed is the state that everything falls back to:
the table is applied before the engine answers and stays when the engine is gone. What must outlive an engine is held
here; it is handed over, never looked into.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from bpf.errors import BpfError
from bpf.loader import Attached, start_loading
from bpf.sockdiag import SockDiag
from dnsfw.channel import (
    Alive,
    Finish,
    Finished,
    Inheritance,
    JudgedAgain,
    Kept,
    Listening,
    Message,
    Probe,
    Ready,
    Renewed,
    Serving,
    Wanted,
    channel_pair,
)
from dnsfw.control import condition
from dnsfw.control.condition import Condition
from dnsfw.engine.extent import extent_of
from dnsfw.errors import SetupError
from dnsfw.journal.lifecycle import Gaps, Life, Turn
from dnsfw.journal.shared import SharedLog
from dnsfw.place import QUEUE, EngineConfig, GuardOptions, Place, engine_user
from dnsfw.supervisor.engines import Engine, Engines
from dnsfw.supervisor.errands import Errands
from dnsfw.supervisor.proxies import Proxy
from dnsfw.supervisor.reloading import Reloading
from dnsfw.terminal import complain, say
from firewall.conntrack import Conntrack
from firewall.frames import Frames
from firewall.nft import NftError
from firewall.ruleset import Plan
from firewall.table import Table
from resolver.listeners import Listeners, make_listeners, make_wide_listeners

if TYPE_CHECKING:
    from dnsfw.lockdown.hold import Hold

_RESOLVER_PORTS = range(53053, 53085)  # the first free one
_LOADING_SECONDS = 20.0
_UNTOLD = 100  # turns that wait for an engine; more are forgotten, the earliest first


class Starting:
    """A guard that is not in force yet: the first engine at its preparations, the BPF programs at the compiler's."""

    def __init__(self, options: GuardOptions, place: Place, stack: ExitStack) -> None:
        self._place = place
        self._stack = stack
        self._loading = start_loading(place.cgroup, extent_of(place))
        stack.callback(self._loading.close)
        with place.inside():
            listeners = _listen(make_listeners)
        wide = _listen(make_wide_listeners) if place.network is None else None
        for listener in listeners.sockets + (() if wide is None else wide.sockets):
            stack.enter_context(listener)
        self._to_engines, for_engines = channel_pair()
        for end in (self._to_engines, for_engines):
            stack.callback(end.close)
        log = SharedLog()
        stack.callback(log.close)
        self._config = EngineConfig(options, place, engine_user(), listeners, for_engines, log, wide=wide)
        self._engines = Engines(self._config)
        stack.callback(self._engines.end)  # after the table is gone

    def enforce(self) -> Guard:
        """Put the table in force once the engine's queue is there; return when the engine answers.

        Raises DnsfwError, with the engine's reason where it gave one.
        """
        engine = self._engines.first
        hosts = engine.expect(Listening).inspected
        (policy,) = engine.channel.descriptors()
        proxy = self._stack.enter_context(Proxy(hosts, self._place, self._to_engines)) if hosts else None
        audit, on_host = self._config.options.audit, self._place.network is None
        try:
            with self._place.inside():
                table = self._stack.enter_context(Table(self._plan(proxy)))
        except NftError as error:
            raise SetupError(f"The packet filter can't be put in force: {error}") from error
        if on_host and not audit:
            self._stop_frames()
        programs = self._programs()
        reloading = Reloading(self._config.options, self._place, table, policy)
        self._stack.callback(reloading.close)
        errands = Errands(self._config.options, self._place)
        self._stack.callback(errands.close)
        guard = Guard(self._engines, programs, (reloading, errands), proxy)
        guard.bequeath(engine)
        engine.expect(Ready)
        self._engines.at_work(engine)
        if proxy is not None:
            guard.proxied = proxy.await_serving()
        return guard

    def _programs(self) -> Attached | None:
        """Without them rules about programs still hold, but many an owner is unknown."""
        try:
            return self._stack.enter_context(self._loading.finish(_LOADING_SECONDS))
        except BpfError as error:
            complain(f"sockets can't be recorded as they are used: {error}.")
            complain("owners are looked for in /proc instead: slowly, and a process that ends soon is unknown.")
            return None

    def _stop_frames(self) -> None:
        """In a namespace of ours no process may send any; on a host, whoever has CAP_NET_RAW."""
        try:
            self._stack.enter_context(Frames())
        except NftError:
            complain(
                "this kernel (before Linux 5.16) can't stop frames that programs with CAP_NET_RAW make themselves."
            )

    def _plan(self, proxy: Proxy | None) -> Plan:
        """A namespace of our own has nothing in it yet. A host has: its servers and what was connected go on."""
        port, audit = self._config.listeners.port, self._config.options.audit
        proxy_port = None if proxy is None else proxy.port
        if self._config.wide is None:
            return Plan(port, QUEUE, audit=audit, inbound="closed", proxy_port=proxy_port)
        with SockDiag() as diag, Conntrack() as conntrack:
            standing, passing = tuple(diag.established()), conntrack.connections()
        return Plan(
            port,
            QUEUE,
            audit=audit,
            inbound="open",
            exempt_uids=(self._config.user.uid,),
            standing=standing,
            proxy_port=proxy_port,
            bridged_port=self._config.wide.port,
            passing=passing,
        )


class Guard:
    """A guard in force, and its supervisor's part: `tend` whenever `patience` is over or a signal came, `finish` at the
    end."""

    def __init__(
        self, engines: Engines, programs: Attached | None, duties: tuple[Reloading, Errands], proxy: Proxy | None
    ) -> None:
        self.restarts = engines.restarts
        self.reloading, self.errands = duties
        self.proxied: Serving | None = None  # what programs are to be told of the proxy; None if there is none
        self.on_another_proxy: Callable[[Serving], None] = lambda _: None  # of one that has another authority
        self.stop_wanted = False  # somebody who may said so over the control socket
        self._alive_at = time.monotonic()
        self._engines = engines
        self._directory = engines.config.place.directory
        self._programs = () if programs is None else programs.descriptors
        self._proxy = proxy
        self._last_death: Life | None = None
        self._untold: list[Life] = []  # what no engine was told of yet
        self._gaps = Gaps(closed=not engines.config.options.audit)

    def tend(self) -> None:
        """Hear the engine; bury it if it is dead; start the next one when the time has come; go on with a reload. Never
        waits."""
        if self._engines.due():
            self._engines.config = replace(self._engines.config, policy=self.reloading.paper)
            self.bequeath(self._engines.begin())
        engine = self._engines.now
        if engine is not None:
            for message in engine.said():
                self._take(message, engine)
            how = engine.ended()
            if how is not None:
                self._mourn(engine, how)
        self.reloading.tend(self._engines.now)
        another = None if self._proxy is None else self._proxy.tend()
        if another is not None:
            self.on_another_proxy(another)

    def lock_down(self, hold: Hold) -> None:
        """Take from users what is to be taken. Raises DnsfwError."""
        hold.take()
        self.errands.hold = hold
        if self._engines.now is not None:
            self.errands.tell(self._engines.now)

    def lively(self, within: float) -> bool:
        """Did the engine show signs of life in the last `within` seconds? Between two engines we are what lives."""
        engine = self._engines.now
        return engine is None or not engine.serving or time.monotonic() - self._alive_at <= within

    def reload(self) -> None:
        """Have the policy's file read again; what comes of it is told later."""
        self.reloading.begin()

    def patience(self) -> float | None:
        """Seconds until `tend` has something to do by itself; None if only a signal will tell."""
        waits = [self._engines.patience(), self.reloading.patience()]
        waits += [] if self._proxy is None else [self._proxy.patience()]
        return min((wait for wait in waits if wait is not None), default=None)

    def finish(self) -> Finished | None:
        """Have the engine write everything down, and show its summary. None if there is none at work."""
        self.tend()
        engine = self._engines.now
        if engine is None or not engine.serving:
            return None
        with suppress(OSError):
            engine.channel.send(Finish())
            return engine.await_last(Finished)
        return None

    def bequeath(self, engine: Engine) -> None:
        """What outlives engines and doesn't travel by fork, and what happened before."""
        told = Inheritance(
            self.reloading.generation,
            self.reloading.since,
            self.restarts.total,
            self._last_death,
            tuple(self._untold),
            () if self._proxy is None else self._proxy.hosts,
            self._gaps.over,
            self._gaps.down_since,
        )
        with suppress(OSError):  # dead already: the next one is told
            engine.channel.send(told, self._programs)
        self.errands.tell(engine)

    def _take(self, message: Message, engine: Engine) -> None:
        match message:
            case Ready():
                self._engines.at_work(engine)
                self._gaps.back(time.time())
                self._untold.clear()
                condition.clear(self._directory)
                self._open(is_open=False)
                say("the engine is at work again.")
            case Renewed() | JudgedAgain() | Kept():
                self.reloading.said(message, engine)
            case Wanted(what="reload"):
                self.reload()
            case Wanted(what="stop"):
                self.stop_wanted = True
            case Alive():
                self._alive_at = time.monotonic()
            case Wanted() | Probe():
                self.errands.do(message, engine)
            case _:
                pass  # nothing that is said after the start

    def _mourn(self, engine: Engine, how: str) -> None:
        """Nothing has to be closed here: the table has no word for packets that nobody judged."""
        self._open(is_open=True)
        failed_before = self.restarts.failed
        self._engines.bury(engine, how)
        self._last_death = Life(Turn.DIED, time.time(), "engine", how)
        self._gaps.down(self._last_death)
        turns = [*self._untold, self._last_death]
        refused = self.reloading.missed()
        if refused is not None:
            turns.append(Life(Turn.REFUSED, time.time(), "policy", refused.problem))
            complain(f"the policy in force stays. {refused.problem}")
        self._untold = turns[-_UNTOLD:]
        now = self._condition(self._last_death)
        with suppress(OSError):
            condition.leave(now, self._directory)
        if not failed_before:  # once is enough
            complain(str(now))

    def _open(self, *, is_open: bool) -> None:
        """Audit mode never stands in the way: without an engine, questions go to the servers that they are for."""
        if self._engines.config.options.audit:
            with suppress(NftError):  # then they wait for the next engine
                self.reloading.table.steer(on=not is_open)

    def _condition(self, death: Life) -> Condition:
        again = self._engines.patience() or 0.0
        audit = self._engines.config.options.audit
        return Condition(self.restarts.total, self.restarts.failed, death.reason, audit, death.when, again)


@contextmanager
def guarding(options: GuardOptions, place: Place) -> Iterator[Starting]:
    """Start an engine; at exit, the table is removed and the engine of the day ended."""
    with ExitStack() as stack:
        yield Starting(options, place, stack)


def _listen(make: Callable[[int], Listeners]) -> Listeners:
    """On the first free port of ours. Raises SetupError."""
    for port in _RESOLVER_PORTS:
        try:
            return make(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise SetupError(f"The resolver can't listen: {error.strerror}.") from error
    raise SetupError(f"All ports from {_RESOLVER_PORTS[0]} to {_RESOLVER_PORTS[-1]} are taken.", "Free one of them.")
