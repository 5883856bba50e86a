"""Exchanges carried out: sockets, timers, and who waits for which.

Law: carries out the steps of `exchange` and knows nothing of DNS. A fresh connected socket for each attempt, closed
with it; made when it is needed, in the network namespace of whoever runs the loop.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from policy.values import Query
from resolver.boundary import Boundary, Fault
from resolver.cookies import Cookies
from resolver.core import ResolverConfig
from resolver.exchange import Answered, Asked, Attempt, Exchange, Failed, Outcome, Step
from resolver.framing import Deframer, FrameError, frame
from resolver.readiness import Readiness
from resolver.tls import TlsChannel, verifying_context
from resolver.upstreams import Standing, Standings, Transport

type Clock = Callable[[], float]
type Done = Callable[[Outcome], None]

_READ: Final = 0x10000  # octets: more than any message


class Forwarder:
    """Puts each different question to the upstreams once, for however many wait for it."""

    def __init__(self, config: ResolverConfig, clock: Clock, fault: Fault, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._clock = clock
        self._standings = Standings(config.upstreams)
        secure = any(each.transport is Transport.TLS for each in config.upstreams)
        tls = verifying_context(config.authorities) if secure else None  # megabytes, where nobody needs it
        self._cookies = Cookies()
        self._readiness = Readiness(loop)
        self._surroundings = _Surroundings(loop, self._readiness, clock, fault, tls)
        self._runs: dict[Asked, _Run] = {}
        self._waiting = 0
        self._closed = False

    def standings(self) -> tuple[Standing, ...]:
        """How the upstreams are."""
        return self._standings.told()

    def is_asking(self, asked: Asked) -> bool:
        return asked in self._runs

    def has_room(self, asked: Asked) -> bool:
        room = self.is_asking(asked) or len(self._runs) < self._config.max_exchanges
        return room and self._waiting < self._config.max_waiting and not self._closed

    def ask(self, asked: Asked, query: Query, done: Done) -> None:
        """Call `done` with the outcome, later or at once. An identical question under way is joined.
        `query` is whose this is, if something breaks."""
        self._waiting += 1
        if run := self._runs.get(asked):
            run.waiters.append(done)
            return
        upstreams = self._standings.ranked(self._clock())
        exchange = Exchange(asked, upstreams, self._config.patience, cookies=self._cookies)
        run = self._runs[asked] = _Run(exchange, query, self._surroundings, self._finish)
        run.waiters.append(done)
        run.begin()

    def close(self) -> None:
        """End all exchanges; those who wait are told that they failed. There is room for none from now on."""
        self._closed = True
        for run in [*self._runs.values()]:
            run.finish(Failed(None))
        self._readiness.close()

    def _finish(self, run: _Run, outcome: Outcome) -> None:
        del self._runs[run.exchange.asked]
        now = self._clock()
        for upstream in run.exchange.timed_out:
            self._standings.timed_out(upstream, now)
        if isinstance(outcome, Answered):
            self._standings.answered(outcome.upstream, outcome.rtt)
        self._waiting -= len(run.waiters)
        for done in run.waiters:
            done(outcome)


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What every run needs. `tls` is None where no upstream speaks it."""

    loop: asyncio.AbstractEventLoop
    readiness: Readiness
    clock: Clock
    fault: Fault
    tls: ssl.SSLContext | None


class _Run:
    """One exchange on its way: the socket of its current attempt, its timer, and those who wait.

    A datagram's socket is watched by `readiness`, a stream's by the loop. That is given descriptors, not sockets: it
    looks each up first, and words the miss with the whole socket.
    """

    def __init__(
        self,
        exchange: Exchange,
        query: Query,
        surroundings: _Surroundings,
        finished: Callable[[_Run, Outcome], None],
    ) -> None:
        self.exchange = exchange
        self.waiters: list[Done] = []
        self._loop, self._clock = surroundings.loop, surroundings.clock
        self._boundary = Boundary(surroundings.fault, lambda: query)
        self._readiness, self._context = surroundings.readiness, surroundings.tls
        self._finished = finished
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        self._deframer: Deframer | None = None  # while the attempt is over a stream
        self._tls: TlsChannel | None = None  # while that stream is encrypted

    def begin(self) -> None:
        self._advance(self.exchange.start)

    def finish(self, outcome: Outcome) -> None:
        self._close_attempt()
        self._finished(self, outcome)

    def _advance(self, happened: Callable[[float], Step | None]) -> None:
        """Tell the exchange what happened, and carry out what it says."""
        step = self._boundary.run(lambda: Failed(None), happened, self._clock())
        while isinstance(step, Attempt):
            self._close_attempt()
            step = self._boundary.run(lambda: Failed(None), self._open, step)
        if step is None:
            self._set_timer()
        else:
            self.finish(step)

    def _open(self, attempt: Attempt) -> Step | None:
        """Begin an attempt: the next step if it fails at once, which for lack of a route or a descriptor it may."""
        upstream = attempt.upstream
        try:
            family = socket.AF_INET6 if upstream.address.version == 6 else socket.AF_INET
            kind = socket.SOCK_DGRAM if attempt.transport is Transport.UDP else socket.SOCK_STREAM
            self._socket = opened = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            if attempt.transport is Transport.UDP:
                opened.connect(upstream.place)
                opened.send(attempt.payload)
                self._readiness.add(opened.fileno(), self._readable)
            else:
                self._deframer = Deframer(_READ)
                opened.connect_ex(upstream.place)
                self._loop.add_writer(opened.fileno(), self._connected, opened, self._opening(attempt))
        except OSError:
            return self.exchange.closed(self._clock())  # our own kernel says so: nothing to wait for
        return None

    def _opening(self, attempt: Attempt) -> bytes:
        """The first octets of a stream: the question, or the greeting that comes before it."""
        framed = frame(attempt.payload)
        if attempt.transport is not Transport.TLS or self._context is None:
            return framed
        upstream = attempt.upstream
        self._tls = TlsChannel(self._context, upstream.certified or str(upstream.address), framed)
        return self._tls.to_send()

    def _connected(self, opened: socket.socket, opening: bytes) -> None:
        self._loop.remove_writer(opened.fileno())
        try:
            opened.send(opening)  # so little fits the empty buffer of a new connection whole
        except OSError:
            self._advance(self.exchange.network_error)
            return
        self._loop.add_reader(opened.fileno(), self._readable)

    def _readable(self) -> None:
        if (opened := self._socket) is None:
            return
        try:
            data = opened.recv(_READ)
            said = self._decrypted(opened, data)
        except BlockingIOError:
            return
        except OSError:
            self._advance(self.exchange.network_error)
            return
        if self._deframer is None:
            self._advance(lambda now: self.exchange.receive(data, now))
        else:
            self._received(self._deframer, said, ended=not data)

    def _decrypted(self, opened: socket.socket, data: bytes) -> bytes:
        """What the octets say, after the channel's own replies to them. Raises OSError for a server that lies."""
        if self._tls is None:
            return data
        said = self._tls.receive(data)
        if reply := self._tls.to_send():
            opened.send(reply)
        return said

    def _received(self, deframer: Deframer, piece: bytes, *, ended: bool) -> None:
        deframer.feed(piece)
        try:
            message = deframer.next()
        except FrameError:
            self._advance(self.exchange.closed)
            return
        if message is not None:
            self._advance(lambda now: self.exchange.receive(message, now))
        elif ended:
            self._advance(self.exchange.closed)

    def _set_timer(self) -> None:
        if self._timer is not None and self._armed_for == self.exchange.deadline:
            return  # a flood of wrong replies must not become a flood of timers
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = self.exchange.deadline
        wait = max(0.0, self.exchange.deadline - self._clock())
        self._timer = self._loop.call_later(wait, self._advance, self.exchange.time_out)

    def _close_attempt(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            if self._deframer is None:
                self._readiness.forget(self._socket.fileno())
            else:
                self._loop.remove_reader(self._socket.fileno())
                self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._deframer = self._tls = None
