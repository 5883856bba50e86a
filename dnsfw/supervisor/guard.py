"""A guard in force: the table, the engine that it depends on, and the engine after that one.

Law: what `run` and `up` have in common, seen from the supervisor. Closed is the state that everything falls back to:
the table stays when the engine is gone. What must outlive an engine is held here; it is handed over, never looked into.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from bpf.loader import Attached
from dnsfw.channel import (
    Alive,
    Finish,
    Finished,
    Inheritance,
    JudgedAgain,
    Kept,
    Message,
    Probe,
    Ready,
    Renewed,
    Serving,
    Wanted,
)
from dnsfw.control import condition
from dnsfw.control.condition import Condition
from dnsfw.journal.lifecycle import Gaps, Life, Turn
from dnsfw.supervisor.engines import Engine, Engines
from dnsfw.supervisor.errands import Errands
from dnsfw.supervisor.proxies import Proxy
from dnsfw.supervisor.reloading import Reloading
from dnsfw.terminal import complain, say
from firewall.nft import NftError

if TYPE_CHECKING:
    from dnsfw.lockdown.hold import Hold

_UNTOLD = 100  # turns that wait for an engine; more are forgotten, the earliest first


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
