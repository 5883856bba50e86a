"""The resolver on an asyncio loop: listeners before it, upstreams behind it.

Law: wiring. What a message means is `core`'s, what goes upstream `exchange`'s; here they meet sockets and the clock.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial

from policy.values import Flow, Query
from resolver.boundary import Boundary, Fault
from resolver.core import Bind, Core, Pending, ResolverConfig
from resolver.exchange import Outcome
from resolver.forwarder import Forwarder
from resolver.judge import Judge
from resolver.repeats import Told
from resolver.reply import servfail
from resolver.tcp import Connections, TcpConnection
from resolver.udp import Send, UdpListener
from resolver.upstreams import Standing
from resolver.wide import WideBatch


class Resolver:
    """A forwarding resolver that asks `judge` about every query and calls `bind` before each reply with addresses.

    `clock` is monotonic, in seconds. `fault` is told of every error of our own, with the query where one is known;
    the query is answered with SERVFAIL. `serve` once, `close` once.
    """

    def __init__(
        self, config: ResolverConfig, judge: Judge, bind: Bind, clock: Callable[[], float], fault: Fault
    ) -> None:
        self.clock = clock
        self._config = config
        self._core = Core(config, judge, bind)
        self.counters = self._core.counters
        self._report = fault
        self._boundary = Boundary(self._fault, lambda: self._core.judged)
        self._forwarder: Forwarder | None = None  # while there is a loop to run it
        self._connections = Connections(config.tcp_connections)
        self._waiting: dict[bytes, int] = {}  # questions under way, by the client's address; no entry is 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._udp: list[UdpListener] = []
        self._tcp: list[asyncio.Server] = []

    async def serve(
        self,
        loop: asyncio.AbstractEventLoop,
        udp: Sequence[socket.socket],
        tcp: Sequence[socket.socket],
        wide: Sequence[socket.socket] = (),
    ) -> None:
        """Answer on these sockets from now on; they are the resolver's to close. `wide`: UDP on all addresses."""
        self._loop = loop
        self._forwarder = Forwarder(self._config, self.clock, self._fault, loop, self._turn_over)
        self._udp = [UdpListener(sock, self, loop) for sock in udp]
        self._udp += [UdpListener(sock, self, loop, WideBatch) for sock in wide]
        for sock in tcp:
            self._tcp.append(await loop.create_server(self._connection, sock=sock))

    async def close(self) -> None:
        """Take no more, answer what is under way with SERVFAIL, close every socket."""
        for listener in self._udp:
            listener.stop_reading()
        for server in self._tcp:
            server.close()
        if self._forwarder is not None:
            self._forwarder.close()
        for listener in self._udp:
            listener.close()
        self._connections.abort_all()
        self._core.settle()
        if self._settling is not None:
            self._settling.cancel()
        for server in self._tcp:
            await server.wait_closed()

    def standings(self) -> tuple[Standing, ...]:
        """How the upstreams are; empty before `serve`."""
        return () if self._forwarder is None else self._forwarder.standings()

    def policy_changed(self) -> None:
        """The judge speaks for another policy from now on."""
        self._core.policy_changed()

    def told(self, client: Flow, now: float) -> Told | None:
        """What may be repeated to whoever speaks from there; None if that can't be found out."""
        self._settle_soon()
        return self._boundary.run(lambda: None, self._core.told, client, now)

    def take(self, data: bytes, client: Flow, now: float, told: Told | None = None) -> bytes | Pending | None:
        """One message from a client: its reply, silence, or a question to `forward`."""
        return self._boundary.run(lambda: servfail(data), self._core.receive, data, client, now, told)

    def forward(self, pending: Pending, send: Send) -> None:
        """Ask upstream; `send` is called with the reply, once."""
        forwarder, asked, client = self._forwarder, pending.asked, pending.query.client.src.packed
        waiting = self._waiting.get(client, 0)
        joining = forwarder is not None and forwarder.is_asking(asked)
        crowded = waiting >= self._config.max_waiting_each
        if forwarder is None or crowded or not forwarder.has_room(joining=joining):
            send(self._core.overloaded(pending))
            return
        self._waiting[client] = waiting + 1
        if joining:
            self.counters.joined += 1
        else:
            self.counters.forwarded += 1
        forwarder.ask(asked, pending.query, partial(self._conclude, pending, client, send))

    def _conclude(self, pending: Pending, client: bytes, send: Send, outcome: Outcome) -> None:
        self._done(client)
        data = self._boundary.run(lambda: servfail(pending.data), self._core.conclude, pending, outcome, self.clock())
        if data is not None:
            send(data)

    def _done(self, client: bytes) -> None:
        waiting = self._waiting.pop(client)
        if waiting > 1:
            self._waiting[client] = waiting - 1

    def _turn_over(self) -> None:
        for listener in self._udp:
            listener.flush()

    def _settle_soon(self) -> None:
        """Nobody waits longer than a second to learn what was repeated, even if nothing comes after it."""
        if self._settling is None and self._loop is not None:
            self._settling = self._loop.call_later(1.0, self._settle)

    def _settle(self) -> None:
        self._settling = None
        self._core.settle()

    def _connection(self) -> TcpConnection:
        return TcpConnection(self, self._config, self._connections)

    def _fault(self, error: BaseException, query: Query | None) -> None:
        self.counters.faults += 1
        self._report(error, query)
