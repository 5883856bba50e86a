"""Clients over TCP: many questions on a connection, slow ones, idle ones and giants."""

from __future__ import annotations

import asyncio
import socket

import dnslib

from resolver import wire
from resolver.framing import frame
from tests.resolver.world import FakeUpstream, honest, play, question, read_frame, seen, world


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
