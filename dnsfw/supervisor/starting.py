"""Putting a guard in force: all is made ready while nothing is closed, then the table closes and the engine answers.

Law: what `run` and `up` have in common until there is a `Guard`. The table is applied before the engine answers, and
each thing made here is let go of by one stack.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from bpf.errors import BpfError
from bpf.loader import Attached, start_loading
from bpf.sockdiag import SockDiag
from dnsfw.channel import Listening, Ready, channel_pair
from dnsfw.engine.extent import extent_of
from dnsfw.errors import SetupError
from dnsfw.journal.shared import SharedLog
from dnsfw.place import QUEUE, EngineConfig, GuardOptions, Place, engine_user
from dnsfw.supervisor.engines import Engines
from dnsfw.supervisor.errands import Errands
from dnsfw.supervisor.guard import Guard
from dnsfw.supervisor.proxies import Proxy
from dnsfw.supervisor.reloading import Reloading
from dnsfw.terminal import complain
from firewall.conntrack import Conntrack
from firewall.frames import Frames
from firewall.nft import NftError
from firewall.ruleset import Plan
from firewall.table import Table
from resolver.listeners import Listeners, make_listeners, make_wide_listeners

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
                table = self._stack.enter_context(Table(self._plan(proxy), removed=on_host))
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


@contextmanager
def guarding(options: GuardOptions, place: Place) -> Iterator[Starting]:
    """Start an engine; at exit, the table is removed, unless it goes with a namespace of ours, and the engine of the
    day ended."""
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
