"""The resolver on real sockets, before a scripted upstream that may be hostile."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import dnslib
import pytest

from policy.decide import Decision
from policy.values import Action, Proto, Query, Reason
from resolver import wire
from resolver.core import ResolverConfig
from resolver.exchange import Patience
from resolver.framing import frame
from resolver.judge import Plain
from resolver.listeners import make_listeners
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


def flood_then_honest(data: bytes) -> list[bytes]:
    """What an off-path forger and a broken middlebox would add before the answer."""
    good = honest(data)[0]
    evil = bytes(answer(data, "192.0.2.66").pack())
    wrong_id = struct.pack("!H", struct.unpack("!H", evil[:2])[0] ^ 1) + evil[2:]
    wrong_case = evil[:12] + evil[12:].swapcase()
    return [b"", b"\0" * 11, wrong_id, data, wrong_case, evil[:-3], good]


def truncated(data: bytes) -> list[bytes]:
    reply = dnslib.DNSRecord.parse(data).reply(ra=1)
    reply.header.tc = 1
    return [bytes(reply.pack())]


@dataclass
class FakeUpstream:
    """An upstream on one port of 127.0.0.1, UDP and TCP; a script says what each question is answered with."""

    over_udp: Script = honest
    over_tcp: Script = honest
    asked: list[bytes] = field(default_factory=list)
    from_ports: list[int] = field(default_factory=list)
    connected: int = 0
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
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        self.asked.append(data)
        for reply in self.over_tcp(data):
            writer.write(frame(reply))
        await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()


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


@asynccontextmanager
async def world(*upstreams: FakeUpstream | Upstream, **changes: object) -> AsyncIterator[World]:
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
        listeners = make_listeners()
        port = listeners.port
        resolver = Resolver(
            config, Plain(judge), bind, time.monotonic, lambda error, query: faults.append((error, query))
        )
        await resolver.serve(asyncio.get_running_loop(), listeners.udp, listeners.tcp)
        stack.push_async_callback(resolver.close)
        yield World(port, resolver, bound, judged, faults)


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


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_udp_and_tcp_on_both_families(host: str) -> None:
    async def scene() -> None:
        async with world(FakeUpstream()) as here:
            assert seen(await here.udp(question(), host)) == (7, 0, ["192.0.2.1"])
            async with here.tcp(host) as (reader, writer):
                writer.write(frame(question(ident=8)))
                assert seen(await read_frame(reader)) == (8, 0, ["192.0.2.1"])
            assert [query.client.proto for query in here.judged] == [Proto.UDP, Proto.TCP]
            assert {str(query.client.dst) for query in here.judged} == {host}
            assert {query.client.dport for query in here.judged} == {here.port}
            assert here.bound == [("www.example.com", ["192.0.2.1"])] * 2

    play(scene)


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))


def test_a_denied_name_sends_nothing_upstream() -> None:
    async def scene() -> None:
        upstream = FakeUpstream()
        async with world(upstream) as here:
            assert seen(await here.udp(question("data.evil.net"))) == (7, wire.NXDOMAIN, [])
            await here.udp(question())  # a round trip later, still only this one was asked
            assert [dnslib.DNSRecord.parse(each).q.qname for each in upstream.asked] == ["www.example.com"]

    play(scene)


def test_forgeries_before_the_answer_change_nothing() -> None:
    async def scene() -> None:
        async with world(FakeUpstream(flood_then_honest)) as here:
            assert seen(await here.udp(question())) == (7, 0, ["192.0.2.1"])
            assert here.bound == [("www.example.com", ["192.0.2.1"])]

    play(scene)


def test_each_question_upstream_has_its_own_id_port_and_case() -> None:
    async def scene() -> None:
        upstream = FakeUpstream()
        async with world(upstream) as here:
            await here.udp_all([question(f"n{each}.a-long-enough-name.example.com") for each in range(40)])
            read = [dnslib.DNSRecord.parse(each) for each in upstream.asked]
            assert len({each.header.id for each in read}) > 35
            assert len(set(upstream.from_ports)) > 35
            assert len({str(each.q.qname).partition(".")[2] for each in read}) > 35
            assert 7 not in {each.header.id for each in read[:3]}

    play(scene)


def test_identical_questions_share_one_upstream_packet_and_none_is_lost() -> None:
    async def scene() -> None:
        upstream = FakeUpstream()
        async with world(upstream) as here:
            replies = await here.udp_all([question(ident=each) for each in range(200)])
            assert {seen(reply)[0] for reply in replies} == set(range(200))
            assert all(seen(reply)[2] == ["192.0.2.1"] for reply in replies)
            assert len(upstream.asked) == 1
            counters = here.resolver.counters
            assert (counters.forwarded, counters.joined + counters.cached) == (1, 199)

    play(scene)


def test_truncation_leads_to_tcp() -> None:
    async def scene() -> None:
        upstream = FakeUpstream(truncated)
        async with world(upstream) as here:
            assert seen(await here.udp(question())) == (7, 0, ["192.0.2.1"])
            assert (len(upstream.asked), upstream.connected) == (2, 1)

    play(scene)


def test_a_silent_upstream_gives_way_to_the_next() -> None:
    async def scene() -> None:
        async with world(FakeUpstream(silent), FakeUpstream()) as here:
            assert seen(await here.udp(question())) == (7, 0, ["192.0.2.1"])

    play(scene)


def closed_port() -> Upstream:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        return parse_upstream(f"127.0.0.1:{taken.getsockname()[1]}")


def broadcast() -> Upstream:
    """The kernel itself refuses to connect a socket to it."""
    return parse_upstream("255.255.255.255")


@pytest.mark.parametrize(
    ("upstream", "code"),
    [
        pytest.param(lambda: FakeUpstream(silent), 22, id="silent"),
        pytest.param(closed_port, 23, id="port-closed"),
        pytest.param(broadcast, 23, id="not-sendable"),
    ],
)
def test_dead_upstreams_end_in_servfail_with_the_reason(
    upstream: Callable[[], FakeUpstream | Upstream], code: int
) -> None:
    async def scene() -> None:
        async with world(upstream()) as here:
            started = time.monotonic()
            reply = dnslib.DNSRecord.parse(await here.udp(question(edns=True)))
            assert time.monotonic() - started < HURRY.total + 0.5
            assert reply.header.rcode == wire.SERVFAIL
            assert struct.unpack("!H", reply.ar[0].rdata[0].data[:2]) == (code,)
            assert (here.resolver.counters.failed, here.bound, here.faults) == (1, [], [])

    play(scene)


def test_a_closed_port_is_known_long_before_the_time_out() -> None:
    async def scene() -> None:
        patient = Patience(udp=4.0, total=4.5, after_error=0.05, rounds=1)
        async with world(closed_port(), patience=patient) as here:
            started = time.monotonic()
            assert seen(await here.udp(question()))[1] == wire.SERVFAIL
            assert time.monotonic() - started < 2.0

    play(scene)


def test_a_judge_that_breaks_denies_that_query_alone() -> None:
    async def scene() -> None:
        async with world(FakeUpstream()) as here:
            assert seen(await here.udp(question("broken.example.com"))) == (7, wire.SERVFAIL, [])
            assert seen(await here.udp(question())) == (7, 0, ["192.0.2.1"])
            [(error, query)] = here.faults
            assert isinstance(error, ZeroDivisionError)
            assert query is not None
            assert query.name == "broken.example.com"
            assert here.resolver.counters.faults == 1

    play(scene)


def test_an_exchange_that_breaks_is_told_with_its_query() -> None:
    async def scene() -> None:
        async with world(
            replace(parse_upstream("127.0.0.1"), port=70_000)
        ) as here:  # no such port: connect(2) can't be called
            assert seen(await here.udp(question())) == (7, wire.SERVFAIL, [])
            [(error, query)] = here.faults
            assert isinstance(error, OverflowError)
            assert query is not None
            assert query.name == "www.example.com"

    asyncio.run(scene())


def test_a_binding_that_breaks_means_no_answer() -> None:
    async def scene() -> None:
        async with world(FakeUpstream()) as here:
            assert seen(await here.udp(question("unbindable.example.com"))) == (7, wire.SERVFAIL, [])
            assert [type(error) for error, _ in here.faults] == [ZeroDivisionError]

    play(scene)


def test_responses_and_fragments_get_no_reply() -> None:
    async def scene() -> None:
        async with world(FakeUpstream()) as here:
            response = bytearray(question(ident=1))
            response[2] |= 0x80
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
                client.connect(("127.0.0.1", here.port))
                for data in (b"", b"x", bytes(response), question(ident=2)):
                    client.send(data)
                assert seen(await loop.sock_recv(client, 4096))[0] == 2, "the first reply is to the question"
            assert here.resolver.counters.ignored == 3

    play(scene)


def test_tcp_many_questions_in_one_segment_each_judged() -> None:
    async def scene() -> None:
        async with world(FakeUpstream()) as here:
            names = ["www.example.com", "data.evil.net", "n1.example.com", "n2.example.com"]
            async with here.tcp() as (reader, writer):
                writer.write(b"".join(frame(question(name, ident=at)) for at, name in enumerate(names)))
                replies = {seen(await read_frame(reader))[:2] for _ in names}
            assert replies == {(0, 0), (1, wire.NXDOMAIN), (2, 0), (3, 0)}
            assert [query.name for query in here.judged] == names

    play(scene)


def test_tcp_replies_are_not_held_up_by_a_slow_question() -> None:
    async def scene() -> None:
        upstream = FakeUpstream(lambda data: [] if b"slow" in data.lower() else honest(data))
        async with world(upstream) as here, here.tcp() as (reader, writer):
            writer.write(frame(question("slow.example.com", ident=1)) + frame(question(ident=2)))
            assert [seen(await read_frame(reader))[:2] for _ in range(2)] == [(2, 0), (1, wire.SERVFAIL)]

    play(scene)


def test_tcp_one_octet_at_a_time() -> None:
    async def scene() -> None:
        async with world(FakeUpstream()) as here, here.tcp() as (reader, writer):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in frame(question()):
                writer.write(bytes((octet,)))
                await writer.drain()
            assert seen(await read_frame(reader)) == (7, 0, ["192.0.2.1"])

    play(scene)


def test_tcp_a_client_that_has_said_all_still_gets_its_reply() -> None:
    async def scene() -> None:
        async with world(FakeUpstream()) as here, here.tcp() as (reader, writer):
            writer.write(frame(question()))
            writer.write_eof()
            assert seen(await read_frame(reader)) == (7, 0, ["192.0.2.1"])
            assert await reader.read() == b"", "and then the connection ends"

    play(scene)


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


def test_tcp_an_announced_giant_ends_the_connection() -> None:
    async def scene() -> None:
        async with world(FakeUpstream()) as here, here.tcp() as (reader, writer):
            writer.write(b"\xff\xff")
            assert await ended(reader)

    play(scene)


def test_tcp_idle_and_creeping_connections_end() -> None:
    async def scene() -> None:
        async with world(FakeUpstream(), tcp_idle=0.2) as here, here.tcp() as (reader, writer):
            writer.write(frame(question())[:5])
            assert await ended(reader)

    play(scene)


def test_tcp_the_connection_idle_longest_makes_room() -> None:
    async def scene() -> None:
        async with world(FakeUpstream(), tcp_connections=2) as here, here.tcp() as used, here.tcp() as idle:
            for reader, writer in (used, idle, used):
                writer.write(frame(question()))
                await read_frame(reader)
            async with here.tcp() as (reader, writer):
                writer.write(frame(question(ident=9)))
                assert seen(await read_frame(reader))[0] == 9
                assert await ended(idle[0])
                used[1].write(frame(question(ident=10)))
                assert seen(await read_frame(used[0]))[0] == 10

    play(scene)


def test_tcp_a_pipeline_deeper_than_the_cap_is_served_to_its_end() -> None:
    async def scene() -> None:
        async with world(FakeUpstream(), tcp_pipeline=2) as here, here.tcp() as (reader, writer):
            writer.write(b"".join(frame(question(f"n{each}.example.com", ident=each)) for each in range(50)))
            assert {seen(await read_frame(reader))[0] for _ in range(50)} == set(range(50))

    play(scene)


def test_tcp_no_more_of_a_connections_questions_are_taken_up_than_the_cap() -> None:
    async def scene() -> None:
        names: list[str] = []
        full = asyncio.Event()

        def script(data: bytes) -> list[bytes]:
            names.append(str(dnslib.DNSRecord.parse(data).q.qname).lower())
            if "n1.example.com." in names:
                full.set()
            return honest(data) if names[-1].startswith("probe") else []

        async with world(FakeUpstream(script), tcp_pipeline=2) as here, here.tcp() as (_, writer):
            writer.write(b"".join(frame(question(f"n{each}.example.com", ident=each)) for each in range(5)))
            await full.wait()
            await here.udp(question("probe.example.com"))
            assert names == ["n0.example.com.", "n1.example.com.", "probe.example.com."]

    play(scene)


@pytest.mark.parametrize("cap", ["max_waiting", "max_waiting_each"])
def test_joining_has_a_cap_too(cap: str) -> None:
    async def scene() -> None:
        async with world(FakeUpstream(silent), **{cap: 3}) as here:
            replies = await here.udp_all([question(ident=each) for each in range(5)])
            assert [seen(reply)[:2] for reply in replies[:2]] == [(3, wire.REFUSED), (4, wire.REFUSED)]
            assert {seen(reply)[:2] for reply in replies[2:]} == {(each, wire.SERVFAIL) for each in range(3)}
            # answered from the failure just kept, and no place is lost for good
            assert seen(await here.udp(question("other.example.com", ident=9)))[:2] == (9, wire.SERVFAIL)

    play(scene)


def test_one_client_can_not_use_up_what_is_for_all() -> None:
    async def scene() -> None:
        async with world(FakeUpstream(silent), max_waiting_each=1) as here:
            both = asyncio.gather(here.udp(question(ident=1)), here.udp(question(ident=2), "::1"))
            assert [seen(reply)[:2] for reply in await both] == [(1, wire.SERVFAIL), (2, wire.SERVFAIL)]

    play(scene)


def test_too_much_under_way_is_refused_at_once_and_counted() -> None:
    async def scene() -> None:
        async with world(FakeUpstream(silent), max_exchanges=3) as here:
            replies = await here.udp_all([question(f"n{each}.example.com", ident=each) for each in range(5)])
            assert [seen(reply)[:2] for reply in replies[:2]] == [(3, wire.REFUSED), (4, wire.REFUSED)]
            assert {seen(reply)[:2] for reply in replies[2:]} == {(each, wire.SERVFAIL) for each in range(3)}
            assert here.resolver.counters.dropped == 2

    play(scene)


def test_closing_answers_what_is_under_way() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            asked = asyncio.Event()

            def script(_: bytes) -> list[bytes]:
                asked.set()
                return []

            async with world(FakeUpstream(script)) as here:
                client.connect(("127.0.0.1", here.port))
                client.send(question())
                await asked.wait()
            assert seen(await loop.sock_recv(client, 4096)) == (7, wire.SERVFAIL, [])

    play(scene)


def test_a_forwarding_loop_ends_in_servfail() -> None:
    """Our upstream is another forwarder that asks us: the question comes back, joins itself, and runs out of time."""

    async def scene() -> None:
        looped = FakeUpstream(silent)
        async with world(looped) as here:
            back: list[Awaitable[bytes]] = []

            def forward(data: bytes) -> list[bytes]:
                back.append(asyncio.ensure_future(here.udp(data)))
                return []

            looped.over_udp = forward
            assert seen(await here.udp(question()))[1] == wire.SERVFAIL
            assert 1 <= len(looped.asked) <= HURRY.rounds
            assert {seen(await each)[1] for each in back} == {wire.SERVFAIL}

    play(scene)


def test_listeners_share_one_port_and_fail_as_one() -> None:
    listeners = make_listeners()
    try:
        everything = (*listeners.udp, *listeners.tcp)
        assert {each.getsockname()[1] for each in everything} == {listeners.port}
        assert sorted(each.getsockname()[0] for each in everything) == ["127.0.0.1", "127.0.0.1", "::1", "::1"]
        with pytest.raises(OSError, match="in use"):
            make_listeners(listeners.port)
    finally:
        for each in (*listeners.udp, *listeners.tcp):
            each.close()
