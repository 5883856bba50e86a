"""The resolver on real sockets: who is answered with what, and when something of ours breaks."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import dnslib
import pytest

from policy.values import Proto
from resolver import wire
from resolver.framing import frame
from resolver.listeners import make_listeners
from resolver.upstreams import parse_upstream
from tests.resolver.world import FakeUpstream, play, question, read_frame, seen, world


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


def test_a_denied_name_sends_nothing_upstream() -> None:
    async def scene() -> None:
        upstream = FakeUpstream()
        async with world(upstream) as here:
            assert seen(await here.udp(question("data.evil.net"))) == (7, wire.NXDOMAIN, [])
            await here.udp(question())  # a round trip later, still only this one was asked
            assert [dnslib.DNSRecord.parse(each).q.qname for each in upstream.asked] == ["www.example.com"]

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
