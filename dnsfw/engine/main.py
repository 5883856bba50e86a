"""The engine: resolver, queue and gate in one process and one event loop.

Law: composition only. It is born root to bind its sockets in the guarded network namespace, then keeps a user id and
the capabilities that verdicts, attribution and map look-ups need. No kernel object that it makes outlives it.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING

from bpf.sockdiag import SockDiag
from dnsfw.channel import (
    Alive,
    Channel,
    Effective,
    Failed,
    Finish,
    Finished,
    Held,
    JudgeAgain,
    Ready,
    Renew,
    TurnedOver,
    Wanted,
)
from dnsfw.control.access import Access
from dnsfw.control.answers import Answers, InForce, Parts
from dnsfw.control.recent import Recent
from dnsfw.control.server import ControlServer, listen
from dnsfw.engine import beginning, requests
from dnsfw.engine.attribution import Attribution
from dnsfw.engine.conversations import Conversations
from dnsfw.engine.gate import Gate
from dnsfw.engine.health import Health
from dnsfw.engine.links import Links
from dnsfw.engine.liveflows import LiveFlows, judge_again
from dnsfw.engine.orders import Orders
from dnsfw.engine.renewal import Judges, Renewal
from dnsfw.engine.snapshot import Known, Snapshot
from dnsfw.engine.storms import Storms
from dnsfw.engine.trouble import Troubled
from dnsfw.engine.watching import Told, watched
from dnsfw.errors import DnsfwError
from dnsfw.host.notify import watchdog_interval
from dnsfw.journal.lifecycle import Life, Turn
from dnsfw.journal.records import Entry
from dnsfw.journal.tally import Tally, summary
from dnsfw.journal.writer import Journal, Keeping
from dnsfw.machine.interpreter import answer_promptly
from dnsfw.machine.privilege import Capability, become, undumpable
from dnsfw.machine.system import system_upstreams
from dnsfw.place import QUEUE, EngineConfig
from dnsfw.policies.reading import Loaded
from dnsfw.terminal import complain
from firewall.overflow import LoadFile
from policy import Bindings, Budgets
from resolver.core import Refusal, ResolverConfig
from resolver.listeners import Listeners
from resolver.server import Resolver

if TYPE_CHECKING:
    from dnsfw.control.scrape import Scrape

# Verdicts on the queue; a cgroup's path from its number; map look-ups on kernels before 5.19.
_KEPT = (Capability.NET_ADMIN, Capability.DAC_READ_SEARCH, Capability.BPF)


def run(config: EngineConfig, channel: Channel) -> int:
    """The engine's whole life; its exit status. The other end of `channel` is told why it can't start."""
    try:
        with ExitStack() as stack:
            engine = Engine(config, channel, stack)
            become(config.user, keep=(*_KEPT, *engine.also_kept))
            undumpable()
            answer_promptly()
            asyncio.run(engine.serve(), loop_factory=asyncio.SelectorEventLoop)
    except DnsfwError as error:
        channel.send(Failed(error.problem, error.remedy, error.exit_status))
        return error.exit_status
    return 0


class Engine:
    """The parts, bound and connected. Made as root; `stack` lets go of them at the end."""

    def __init__(self, config: EngineConfig, channel: Channel, stack: ExitStack) -> None:
        self._config = config
        self._channel = channel
        self._tally = Tally()
        self._recent = Recent()
        loaded = beginning.policy(config)
        self._bind(stack)
        # The table is made while the compiler works.
        beginning.say_listening(channel, loaded, first=config.policy is None)
        self._inheritance = beginning.inherit(channel)
        self._attribution = Attribution(config, beginning.programs(channel, stack), self._diag, stack)
        self.also_kept = self._attribution.capabilities
        self._judge_by(loaded)
        self._answer_about(loaded, stack)

    def _bind(self, stack: ExitStack) -> None:
        """What is of the kernel or on a disk."""
        options, place = self._config.options, self._config.place
        keeping = Keeping(options.rotation, partial(self._channel.send, Wanted("turn-over")), complain)
        mode = "audit" if options.audit else "enforce"
        self._journal = Journal(options.journal, mode, place.user, keeping)
        stack.callback(self._journal.close)
        self._control_socket = stack.enter_context(listen(place.directory, place.user.uid))
        with nullcontext() if place.network is None else place.network.entered():
            self._diag = stack.enter_context(SockDiag())
            self._load = stack.enter_context(LoadFile(QUEUE))
            self._packets = beginning.packets(stack)
            self._live = LiveFlows(stack)
        self._storms = Storms(self._load.read, self._journal.tell, time.time, audit=options.audit)
        self._links = Links(stack, self._fault) if place.network is None else None

    def _judge_by(self, loaded: Loaded) -> None:
        """What decides, and what it decides by."""
        options = self._config.options
        self._bindings = Bindings()
        budgets = Budgets(options.limits)
        known = Known(self._bindings, self._tally, budgets)
        self._snapshot = Snapshot(self._config.log, known, loaded.policy, time.monotonic)
        self._proxies = Conversations(self._config.keeper, self._journal.tell)
        self._gate = Gate(
            loaded.policy,
            self._bindings,
            self._attribution.owners.of,
            self._record,
            time.monotonic,
            options.audit,
            budgets,
            inspects=self._proxies.held,
            awaits=self._attribution.awaits,
        )
        upstreams = options.upstreams or system_upstreams(guarding_host=self._config.place.network is None)
        resolver = ResolverConfig(upstreams, refusal=Refusal.REFUSED if options.refused else Refusal.NXDOMAIN)
        self._resolver = Resolver(resolver, self._gate, self._snapshot.bind, time.monotonic, self._gate.fault)
        self._troubled = Troubled(
            self._packets,
            self._proxies,
            self._resolver,
            upstreams,
            self._journal,
            self._inheritance,
            self._links,
            options.audit,
        )

    def _answer_about(self, loaded: Loaded, stack: ExitStack) -> None:
        """What tells others of this engine, and does what they ask for."""
        config, channel, inheritance = self._config, self._channel, self._inheritance
        in_force = InForce(loaded, inheritance.since, inheritance.generation)
        # A host's policy is watched; a command's is what it was when the command began.
        self._policy_files = in_force.files if config.place.network is None else dict
        judges = Judges(self._gate, self._resolver, in_force, inheritance.inspected)
        self._renewal = Renewal(channel, judges, self._journal.tell, time.time)
        self._health = Health(self._gate, lambda told, answer: channel.send(told, [answer]))
        self._orders = Orders(channel, self._renewal.reload, self._health.check)
        parts = Parts(
            tally=self._tally,
            recent=self._recent,
            journal=self._journal,
            resolver=self._resolver,
            owners=self._attribution.owners,
            bindings=self._bindings,
            load=self._load,
            policy=in_force,
            proxy=self._proxies.state(inheritance.inspected),
            trouble=self._troubled.sentences,
        )
        answers = Answers(beginning.identity(config, inheritance), parts, self._orders, time.monotonic)
        self._scrape = _scrape(config.options.metrics_port, answers, stack)
        self._control = ControlServer(Access(config.place.user.uid, config.options.token), answers.answer)

    async def serve(self) -> None:
        """Until the supervisor says so, or is gone."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._gate.escaped)
        self._journal.start()  # not before privilege is gone: capset(2) is for one thread
        listeners, behind = self._config.listeners, self._config.wide or Listeners((), ())
        await self._resolver.serve(loop, listeners.udp, (*listeners.tcp, *behind.tcp), behind.udp)
        self._attribution.serve(loop)
        self._packets.serve(loop, self._gate, self._storms)
        if self._links is not None:
            self._links.serve(loop)
        self._proxies.serve(loop, partial(requests.answer, self._gate))
        await self._control.serve(self._control_socket)
        if self._scrape is not None:
            self._scrape.start(loop)
        self._tell_beginning()
        with watched(self._policy_files, self._told(loop)):
            self._channel.send(Ready())
            self._beat(loop)
            finish = await self._converse(loop)
        self._packets.rest()
        self._proxies.close()
        self._control.close()
        await self._resolver.close()
        self._journal.close()
        if finish:  # otherwise nobody is left to tell
            self._report()

    async def _converse(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Do what the supervisor says until it is time to end: False if it is gone."""
        said = asyncio.Event()
        while True:
            loop.add_reader(self._channel.fileno(), said.set)
            await said.wait()
            loop.remove_reader(self._channel.fileno())
            said.clear()
            match self._channel.receive():
                case Renew():
                    (paper,) = self._channel.descriptors()
                    self._renewal.offered(paper)
                    os.close(paper)
                case JudgeAgain(former, generation):
                    self._channel.send(await judge_again(self._live, self._gate, former, generation))
                case TurnedOver():
                    (file,) = self._channel.descriptors()
                    self._journal.continue_in(file)
                case Held() as held:
                    self._orders.heard(held)
                case Effective(generation):
                    self._renewal.effective(generation)
                case last:
                    return last == Finish()

    def _told(self, loop: asyncio.AbstractEventLoop) -> Told:
        want = partial(self._channel.send, Wanted("reload"))
        return Told(
            lambda: loop.call_soon_threadsafe(want),
            lambda error: loop.call_soon_threadsafe(partial(self._fault, error)),
        )

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """Show signs of life where somebody watches."""
        interval = watchdog_interval(self._config.place.environ)
        if interval is not None:
            with suppress(OSError):  # the supervisor is gone, and we are about to be
                self._channel.send(Alive())
            loop.call_later(interval, self._beat, loop)

    def _fault(self, error: BaseException) -> None:
        self._gate.fault(error, None)

    def _tell_beginning(self) -> None:
        """What the engines before could not write down, and that there is one again."""
        for life in self._inheritance.lives:
            self._journal.tell(life)
        if self._inheritance.deaths:
            self._journal.tell(Life(Turn.RESTARTED, time.time(), "engine"))

    def _report(self) -> None:
        text = summary(self._tally, self._troubled.sentences(), audit=self._config.options.audit)
        self._channel.send(Finished(self._tally.denied, text))

    def _record(self, entry: Entry) -> None:
        if not self._health.saw(entry):
            self._tally.take(entry)
            self._snapshot.take(entry)
            self._recent.take(entry, time.time())
        self._journal.record(entry)


def _scrape(port: int, answers: Answers, stack: ExitStack) -> Scrape | None:
    """Metrics over HTTP, where they are wanted: the library takes room."""
    if port == 0:
        return None
    from dnsfw.control.scrape import Scrape  # noqa: PLC0415

    return stack.enter_context(Scrape(port, answers.status))
