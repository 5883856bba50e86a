"""A guard in force: the table, the engine that it depends on, and the engine after that one.

Law: what `run` and `up` have in common, seen from the supervisor. Closed is the state that everything falls back to:
the table is applied before the engine answers and stays when the engine is gone. What must outlive an engine is held
here; it is handed over, never looked into.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from bpf.errors import BpfError
from bpf.loader import Attached, start_loading
from bpf.sockdiag import SockDiag
from dnsfw.channel import (
    Finish,
    Finished,
    JudgeAgain,
    JudgedAgain,
    Listening,
    Message,
    Programs,
    Ready,
    Renew,
    Renewed,
    Serving,
    Wanted,
    channel_pair,
)
from dnsfw.engines import Engine, Engines
from dnsfw.errors import SetupError
from dnsfw.extent import extent_of
from dnsfw.lifecycle import Life, Turn
from dnsfw.place import PROXY_USER, QUEUE, EngineConfig, GuardOptions, Place, engine_user
from dnsfw.proxies import Proxy
from dnsfw.terminal import complain, say
from firewall.frames import Frames
from firewall.nft import NftError
from firewall.ruleset import Plan
from firewall.table import Table
from resolver.listeners import Listeners, make_listeners

_RESOLVER_PORTS = range(53053, 53085)  # the first free one
_LOADING_SECONDS = 20.0


class Starting:
    """A guard that is not in force yet: the first engine at its preparations, the BPF programs at the compiler's."""

    def __init__(self, options: GuardOptions, place: Place, stack: ExitStack) -> None:
        self._place = place
        self._stack = stack
        self._loading = start_loading(place.cgroup, extent_of(place))
        stack.callback(self._loading.close)
        with place.inside():
            listeners = _listen()
        for listener in (*listeners.udp, *listeners.tcp):
            stack.enter_context(listener)
        self._to_engines, for_engines = channel_pair()
        for end in (self._to_engines, for_engines):
            stack.callback(end.close)
        self._config = EngineConfig(options, place, engine_user(), listeners, for_engines)
        self._engines = Engines(self._config)
        stack.callback(self._engines.end)  # after the table is gone

    def enforce(self) -> Guard:
        """Put the table in force once the engine's queue is there; return when the engine answers.

        Raises DnsfwError, with the engine's reason where it gave one.
        """
        engine = self._engines.first
        hosts = engine.expect(Listening).inspected
        proxy = self._stack.enter_context(Proxy(hosts, self._place, self._to_engines)) if hosts else None
        audit, on_host = self._config.options.audit, self._place.network is None
        try:
            with self._place.inside():
                table = self._stack.enter_context(Table(self._plan(proxy)))
        except NftError as error:
            raise SetupError(f"The packet filter can't be put in force: {error}") from error
        if on_host and not audit:
            self._stop_frames()
        try:
            programs = self._stack.enter_context(self._loading.finish(_LOADING_SECONDS))
        except BpfError as error:
            raise SetupError("Sockets can't be attributed to processes: " + str(error)) from error
        engine.channel.send(Programs(), programs.descriptors)
        engine.expect(Ready)
        self._engines.at_work(engine)
        guard = Guard(self._engines, programs, table, audit=audit)
        guard.proxied = None if proxy is None else proxy.await_serving()
        return guard

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
        if self._place.network is not None:
            return Plan(port, QUEUE, audit=audit, inbound="closed", proxy_port=proxy_port)
        with SockDiag() as diag:
            standing = tuple(diag.established())
        exempt = (self._config.user.uid,) if proxy is None else (self._config.user.uid, PROXY_USER.uid)
        return Plan(
            port, QUEUE, audit=audit, inbound="open", exempt_uids=exempt, standing=standing, proxy_port=proxy_port
        )


class Guard:
    """A guard in force, and its supervisor's part: `tend` whenever `patience` is over or a signal came, `finish` at the
    end."""

    def __init__(self, engines: Engines, programs: Attached, table: Table, *, audit: bool) -> None:
        self.restarts = engines.restarts
        self._engines = engines
        self._programs = programs
        self._table = table
        self._generation = 0  # of the policy
        self._audit = audit
        self._untold: list[Life] = []  # what no engine was told of yet
        self.proxied: Serving | None = None  # what programs are to be told of the proxy; None if there is none
        self.stop_wanted = False  # somebody who may said so over the control socket

    def tend(self) -> None:
        """Hear the engine; bury it if it is dead; start the next one when the time has come. Never waits."""
        if self._engines.due():
            self._hand_over(self._engines.begin())
        engine = self._engines.now
        if engine is None:
            return
        for message in engine.said():
            self._take(message, engine)
        how = engine.ended()
        if how is not None:
            self._mourn(engine, how)

    def patience(self) -> float | None:
        """Seconds until `tend` has something to do by itself; None if only a signal will tell."""
        return self._engines.patience()

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

    def renew(self) -> JudgedAgain:
        """Have the engine read its policy again, and judge by it what lives: how many flows go on, how many were cut.

        What is wrong with the policy is raised as an EngineError, and the former one stays in force. Where anything
        else goes wrong (DnsfwError), flows of the former policy are judged again from their next packet on.
        """
        engine = self._engines.now
        if engine is None or not engine.serving:
            raise SetupError("No engine is at work that could change its policy.", "Try again when it is back.")
        engine.ask(Renew(), Renewed, self._take)
        former, self._generation = self._generation, self._generation + 1
        try:
            self._table.set_generation(self._generation, former)
            return engine.ask(JudgeAgain(former, self._generation), JudgedAgain, self._take)
        finally:
            self._table.set_generation(self._generation)

    def _take(self, message: Message, engine: Engine) -> None:
        if isinstance(message, Ready):
            self._engines.at_work(engine)
            say("the engine is at work again.")
        elif isinstance(message, Wanted):
            self.stop_wanted = self.stop_wanted or message.what == "stop"

    def _hand_over(self, engine: Engine) -> None:
        """What outlives engines and doesn't travel by fork, and what happened before."""
        with suppress(OSError):  # dead already: the next one is told
            engine.channel.send(Programs(tuple(self._untold)), self._programs.descriptors)
            self._untold.clear()

    def _mourn(self, engine: Engine, how: str) -> None:
        """Nothing is opened or closed here: the table has no word for packets that nobody judged."""
        self._engines.bury(engine, how)
        self._untold.append(Life(Turn.DIED, time.time(), "engine", how))
        meanwhile = "nothing is judged" if self._audit else "nothing new leaves"
        complain(f"the engine died ({how}); {meanwhile} until it is back.")


@contextmanager
def guarding(options: GuardOptions, place: Place) -> Iterator[Starting]:
    """Start an engine; at exit, the table is removed and the engine of the day ended."""
    with ExitStack() as stack:
        yield Starting(options, place, stack)


def _listen() -> Listeners:
    """On the first free port of ours. Raises SetupError."""
    for port in _RESOLVER_PORTS:
        try:
            return make_listeners(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise SetupError(f"The resolver can't listen on loopback: {error.strerror}.") from error
    raise SetupError(f"All ports from {_RESOLVER_PORTS[0]} to {_RESOLVER_PORTS[-1]} are taken.", "Free one of them.")
