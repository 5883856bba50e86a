"""Exchanges carried out: sockets, deadlines, and who waits for which.

Law: carries out the steps of `exchange` and knows nothing of DNS. Over UDP a fresh connected socket for each attempt,
closed with it; made when it is needed, in the network namespace of whoever runs the loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from policy.values import Query
from resolver.boundary import Boundary, Fault
from resolver.chance import Chance
from resolver.cookies import Cookies
from resolver.core import ResolverConfig
from resolver.exchange import Answered, Asked, Attempt, Exchange, Failed, Outcome, Step
from resolver.readiness import Readiness
from resolver.streams import Asking, Streams
from resolver.tls import verifying_context
from resolver.upstreams import Standing, Standings, Transport

type Clock = Callable[[], float]
type Done = Callable[[Outcome], None]

_DATAGRAMS: Final = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
_READ: Final = 0x1000  # octets of a datagram: more than we let anybody send
_TICK: Final = 0.02  # seconds between looks at the deadlines: a timer for each question costs more than the question


class Forwarder:
    """Puts each different question to the upstreams once, for however many wait for it. `turn_over` is called when all
    that came in at once has been seen to."""

    def __init__(
        self,
        config: ResolverConfig,
        clock: Clock,
        fault: Fault,
        loop: asyncio.AbstractEventLoop,
        turn_over: Callable[[], None],
    ) -> None:
        self._config, self._loop = config, loop
        self.turn_over = turn_over
        self._standings = Standings(config.upstreams)
        self._chance = Chance()
        self._cookies = Cookies(self._chance)
        self._runs: dict[Asked, _Run] = {}
        self._waiting = 0
        self._closed = False
        self._ticking: asyncio.TimerHandle | None = None
        self.clock = clock
        self.concerns: Query | None = None  # whose question is being seen to
        self.boundary = Boundary(fault, lambda: self.concerns)
        self.readiness = Readiness(loop, turn_over)
        secure = any(each.transport is Transport.TLS for each in config.upstreams)
        tls = verifying_context(config.authorities) if secure else None  # megabytes, where nobody needs it
        self.streams = Streams(loop, config.upstream_idle, tls, lambda error: fault(error, None))

    def standings(self) -> tuple[Standing, ...]:
        """How the upstreams are."""
        return self._standings.told()

    def is_asking(self, asked: Asked) -> bool:
        return asked in self._runs

    def has_room(self, *, joining: bool) -> bool:
        """For one more question; `joining` one that is under way."""
        room = joining or len(self._runs) < self._config.max_exchanges
        return room and self._waiting < self._config.max_waiting and not self._closed

    def ask(self, asked: Asked, query: Query, done: Done) -> None:
        """Call `done` with the outcome, later or at once. An identical question under way is joined.
        `query` is whose this is, if something breaks."""
        self._waiting += 1
        if run := self._runs.get(asked):
            run.waiters.append(done)
            return
        now = self.clock()
        upstreams = self._standings.ranked(now)
        exchange = Exchange(asked, upstreams, self._config.patience, self._chance, self._cookies)
        run = self._runs[asked] = _Run(self, exchange, query, done)
        run.advance(exchange.start, now)
        if self._ticking is None:
            self._keep_time()

    def close(self) -> None:
        """End all exchanges; those who wait are told that they failed. There is room for none from now on."""
        self._closed = True
        for run in [*self._runs.values()]:
            run.finish(Failed(None))
        if self._ticking is not None:
            self._ticking.cancel()
        self.streams.close()
        self.readiness.close()

    def finished(self, run: _Run, outcome: Outcome) -> None:
        del self._runs[run.exchange.asked]
        for upstream in run.exchange.timed_out:
            self._standings.timed_out(upstream, self.clock())
        if isinstance(outcome, Answered):
            self._standings.answered(outcome.upstream, outcome.rtt)
        self._waiting -= len(run.waiters)
        for done in run.waiters:
            done(outcome)

    def _keep_time(self) -> None:
        if self._ticking is None and self._runs:
            self._ticking = self._loop.call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        now = self.clock()
        for run in [run for run in self._runs.values() if run.exchange.deadline <= now]:
            run.time_out()
        self._keep_time()
        self.turn_over()


class _Run:
    """One exchange on its way: the socket or the place on a stream of its current attempt, and those who wait."""

    __slots__ = ("_asking", "_forwarder", "_query", "_socket", "exchange", "waiters")

    def __init__(self, forwarder: Forwarder, exchange: Exchange, query: Query, done: Done) -> None:
        self.exchange = exchange
        self.waiters = [done]
        self._forwarder, self._query = forwarder, query
        self._socket: socket.socket | None = None
        self._asking: Asking | None = None

    def finish(self, outcome: Outcome) -> None:
        self._close_attempt()
        self._forwarder.finished(self, outcome)

    def time_out(self) -> None:
        self.advance(self.exchange.time_out, self._forwarder.clock())

    def heard(self, data: bytes) -> None:
        """Over a stream."""
        self.advance(self.exchange.receive, data, self._forwarder.clock())
        self._forwarder.turn_over()

    def hung_up(self) -> None:
        """It was a stream's end."""
        self.advance(self.exchange.closed, self._forwarder.clock())
        self._forwarder.turn_over()

    def advance[*A](self, happened: Callable[[*A], Step | None], *what: *A) -> None:
        """Tell the exchange what happened, and carry out what it says."""
        forwarder = self._forwarder
        forwarder.concerns = self._query
        step = forwarder.boundary.run(_failed, self._follow, happened, *what)
        if step is not None:
            self.finish(step)

    def _follow[*A](self, happened: Callable[[*A], Step | None], *what: *A) -> Outcome | None:
        """Until there is something to wait for, or nothing more."""
        step = happened(*what)
        while isinstance(step, Attempt):
            if self._socket is not None or self._asking is not None:
                self._close_attempt()
            step = self._open(step)
        return step

    def _open(self, attempt: Attempt) -> Step | None:
        """Begin an attempt: the next step if it fails at once, which for lack of a route or a descriptor it may."""
        upstream = attempt.upstream
        if attempt.transport is not Transport.UDP:
            self._asking = self._forwarder.streams.ask(upstream, attempt.transport, attempt.payload, self)
            return None
        try:
            self._socket = opened = socket.socket(upstream.family, _DATAGRAMS)
            opened.connect(upstream.place)
            opened.send(attempt.payload)
        except OSError:
            return self.exchange.closed(self._forwarder.clock())  # our own kernel says so: nothing to wait for
        self._forwarder.readiness.add(opened.fileno(), self._readable)
        return None

    def _readable(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            self.advance(self.exchange.network_error, self._forwarder.clock())
        else:
            self.advance(self.exchange.receive, data, self._forwarder.clock())

    def _close_attempt(self) -> None:
        if self._socket is not None:
            self._forwarder.readiness.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None


def _failed() -> Outcome:
    return Failed(None)
