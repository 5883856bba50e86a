"""A resolver on loopback before scripted upstreams that may be hostile: what its tests are played on."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import dnslib

from policy.decide import Decision
from policy.values import Action, Query, Reason
from resolver import wire
from resolver.core import ResolverConfig
from resolver.exchange import Patience
from resolver.framing import frame
from resolver.judge import Plain
from resolver.listeners import make_listeners, make_wide_listeners
from resolver.server import Resolver
from resolver.upstreams import Upstream, parse_upstream

ALLOW = Decision(Action.ALLOW, Reason.ALLOW_RULE, None, None)
DENY = Decision(Action.DENY, Reason.NO_RULE, None, None)
HURRY = Patience(udp=0.3, stream=0.5, total=1.0, after_error=0.05)

type Script = Callable[[bytes], list[bytes]]


def honest(data: bytes) -> list[bytes]:
    return [bytes(answer(data).pack())]


def answer(data: bytes, text: str = "192.0.2.1") -> dnslib.DNSRecord:
    reply = dnslib.DNSRecord.parse(data).reply(ra=1)
    rdata = dnslib.AAAA(text) if ":" in text else dnslib.A(text)
    reply.add_answer(dnslib.RR(reply.q.qname, wire.AAAA if ":" in text else wire.A, rdata=rdata, ttl=60))
    return reply


def silent(_: bytes) -> list[bytes]:
    return []


@dataclass
class FakeUpstream:
    """An upstream on one port of 127.0.0.1, UDP and TCP; a script says what each question is answered with."""

    over_udp: Script = honest
    over_tcp: Script = honest
    asked: list[bytes] = field(default_factory=list)
    from_ports: list[int] = field(default_factory=list)
    connected: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    server: Upstream = field(init=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Upstream]:
        loop = asyncio.get_running_loop()
        stream = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        port = stream.sockets[0].getsockname()[1]
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        datagrams.bind(("127.0.0.1", port))
        loop.add_reader(datagrams, self._receive, datagrams)
        self.server = parse_upstream(f"127.0.0.1:{port}")
        try:
            yield self.server
        finally:
            loop.remove_reader(datagrams)
            datagrams.close()
            stream.close()
            await stream.wait_closed()

    def _receive(self, datagrams: socket.socket) -> None:
        data, peer = datagrams.recvfrom(4096)
        self.asked.append(data)
        self.from_ports.append(peer[1])
        for reply in self.over_udp(data):
            datagrams.sendto(reply, peer)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        self.open.add(writer)
        try:
            while True:
                data = await read_frame(reader)
                self.asked.append(data)
                for reply in self.over_tcp(data):
                    writer.write(frame(reply))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the resolver, or a test, hung up
        finally:
            self.open.discard(writer)
            writer.close()

    def hang_up(self) -> None:
        """End every connection, whatever was asked on it."""
        for writer in [*self.open]:
            writer.transport.abort()


@dataclass
class World:
    """A resolver on loopback, and all that went in and out of it."""

    port: int
    resolver: Resolver
    bound: list[tuple[str, list[str]]]
    judged: list[Query]
    faults: list[tuple[BaseException, Query | None]]

    async def udp(self, data: bytes, host: str = "127.0.0.1") -> bytes:
        return (await self.udp_all([data], host))[0]

    async def udp_all(self, queries: list[bytes], host: str = "127.0.0.1") -> list[bytes]:
        """One reply for each query, in the order of arrival, from one socket."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.connect((host, self.port))
            for query in queries:
                client.send(query)
            async with asyncio.timeout(5):
                return [await loop.sock_recv(client, 65535) for _ in queries]

    @asynccontextmanager
    async def tcp(self, host: str = "127.0.0.1") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(host, self.port)
        try:
            async with asyncio.timeout(5):
                yield reader, writer
        finally:
            writer.close()


def judge_by_name(query: Query) -> Decision:
    if query.name.startswith("broken"):
        raise ZeroDivisionError("the judge is broken")
    return DENY if "evil" in query.name else ALLOW


def world(*upstreams: FakeUpstream | Upstream, **changes: object) -> AbstractAsyncContextManager[World]:
    """`changes` are of the resolver's configuration."""
    return _world(upstreams, changes, wide=False)


def wide_world(*upstreams: FakeUpstream | Upstream) -> AbstractAsyncContextManager[World]:
    """The same on every address of this host."""
    return _world(upstreams, {}, wide=True)


@asynccontextmanager
async def _world(
    upstreams: Sequence[FakeUpstream | Upstream], changes: dict[str, object], *, wide: bool
) -> AsyncIterator[World]:
    bound: list[tuple[str, list[str]]] = []
    judged: list[Query] = []
    faults: list[tuple[BaseException, Query | None]] = []

    def judge(query: Query) -> Decision:
        judged.append(query)
        return judge_by_name(query)

    def bind(name: str, addresses: object, _now: float) -> None:
        assert isinstance(addresses, list)
        if name.startswith("unbindable"):
            raise ZeroDivisionError("the bindings are broken")
        bound.append((name, [str(address) for address, _ in addresses]))

    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(each.running()) if isinstance(each, FakeUpstream) else each
            for each in upstreams
        ]
        config = replace(ResolverConfig(tuple(servers), patience=HURRY), **changes)  # type: ignore[arg-type]  # replace() knows the names
        listeners = make_wide_listeners(0) if wide else make_listeners()
        loopback, everywhere = ((), listeners.udp) if wide else (listeners.udp, ())
        resolver = Resolver(
            config, Plain(judge), bind, time.monotonic, lambda error, query: faults.append((error, query))
        )
        await resolver.serve(asyncio.get_running_loop(), loopback, listeners.tcp, everywhere)
        stack.push_async_callback(resolver.close)
        yield World(listeners.port, resolver, bound, judged, faults)


def question(name: str = "www.example.com", qtype: int = wire.A, ident: int = 7, *, edns: bool = False) -> bytes:
    asked = dnslib.DNSRecord(dnslib.DNSHeader(id=ident, rd=1), q=dnslib.DNSQuestion(name, qtype))
    if edns:
        asked.add_ar(dnslib.EDNS0(udp_len=1232))
    return bytes(asked.pack())


def seen(data: bytes) -> tuple[int, int, list[str]]:
    """Id, response code and answers."""
    reply = dnslib.DNSRecord.parse(data)
    return reply.header.id, reply.header.rcode, [str(each.rdata) for each in reply.rr]


def play(scene: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(scene())


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
