"""Connections to upstreams are kept: reused, pipelined, closed when idle, and never a question's undoing."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace

import dnslib
import pytest

from resolver import wire
from resolver.exchange import Patience
from resolver.upstreams import Transport, Upstream
from tests.resolver.world import HURRY, FakeUpstream, World, answer, honest, play, question, seen, world


class OverTcp(FakeUpstream):
    """An upstream that is asked over TCP from the start."""

    @property
    def server(self) -> Upstream:
        return self._server

    @server.setter
    def server(self, server: Upstream) -> None:
        self._server = replace(server, transport=Transport.TCP)


async def asks(here: World, *names: str) -> list[tuple[int, int, list[str]]]:
    """All at once; the replies in the order of the questions."""
    questions = [question(f"{name}.example.com", ident=ident) for ident, name in enumerate(names)]
    return sorted(map(seen, await here.udp_all(questions)))


def test_one_connection_serves_one_question_after_the_other() -> None:
    async def scene() -> None:
        upstream = OverTcp()
        async with world(upstream) as here:
            for name in ("a", "b", "c"):
                assert await asks(here, name) == [(0, 0, ["192.0.2.1"])]
            assert (len(upstream.asked), upstream.connected) == (3, 1)

    play(scene)


def test_questions_are_pipelined_and_answers_come_in_any_order() -> None:
    async def scene() -> None:
        held = list[bytes]()

        def backwards(data: bytes) -> list[bytes]:
            held.append(data)
            answers = [bytes(answer(each, f"192.0.2.{at + 1}").pack()) for at, each in enumerate(held)]
            return answers[::-1] if len(held) == 5 else []

        upstream = OverTcp(over_tcp=backwards)
        async with world(upstream) as here:
            replies = await asks(here, *"abcde")
            order = [str(dnslib.DNSRecord.parse(each).q.qname).lower()[0] for each in upstream.asked]
            assert replies == [(at, 0, [f"192.0.2.{order.index(name) + 1}"]) for at, name in enumerate("abcde")]
            assert upstream.connected == 1

    play(scene)


def test_an_idle_connection_is_closed_and_the_next_question_makes_another() -> None:
    async def scene() -> None:
        upstream = OverTcp()
        async with world(upstream, upstream_idle=0.05) as here:
            await asks(here, "a")
            async with asyncio.timeout(5):
                while upstream.open:
                    await asyncio.sleep(0.01)
            assert await asks(here, "b") == [(0, 0, ["192.0.2.1"])]
            assert upstream.connected == 2

    play(scene)


def test_a_connection_that_the_server_had_enough_of_costs_no_question() -> None:
    """It answers one and hangs up: the others that were on their way are asked again at once (RFC 7766 6.2.4)."""

    async def scene() -> None:
        upstream = OverTcp()

        served = 0

        def answers_one(data: bytes) -> list[bytes]:
            nonlocal served
            if served == upstream.connected:
                return []
            served += 1
            asyncio.get_running_loop().call_later(0.01, upstream.hang_up)
            return honest(data)

        upstream.over_tcp = answers_one
        async with world(upstream, patience=replace(HURRY, rounds=1)) as here:
            assert await asks(here, *"abcd") == [(at, 0, ["192.0.2.1"]) for at in range(4)]
            assert upstream.connected == 4

    play(scene)


def test_a_server_that_only_hangs_up_fails_at_once_and_is_not_asked_for_ever() -> None:
    async def scene() -> None:
        upstream = OverTcp()

        def hangs_up(_: bytes) -> list[bytes]:
            upstream.hang_up()
            return []

        upstream.over_tcp = hangs_up
        async with world(upstream, patience=replace(HURRY, rounds=2)) as here:
            assert await asks(here, "a") == [(0, wire.SERVFAIL, [])]
            assert upstream.connected == 2

    play(scene)


def test_a_stuck_connection_is_given_up_by_the_next_question() -> None:
    async def scene() -> None:
        upstream = OverTcp(over_tcp=lambda data: [] if b"stuck" in data.lower() else honest(data))
        async with world(upstream, patience=Patience(stream=0.5, total=0.5, rounds=1)) as here:
            assert await asks(here, "stuck") == [(0, wire.SERVFAIL, [])]
            assert await asks(here, "b") == [(0, 0, ["192.0.2.1"])]
            assert upstream.connected == 2

    play(scene)


@pytest.mark.parametrize("spoil", ["id", "name"])
def test_an_answer_to_something_else_is_no_answer(spoil: str) -> None:
    async def scene() -> None:
        def lies(data: bytes) -> list[bytes]:
            good = honest(data)[0]
            if spoil == "id":
                return [struct.pack("!H", struct.unpack("!H", good[:2])[0] ^ 1) + good[2:]]
            return [good[:13] + b"x" + good[14:]]

        async with world(OverTcp(over_tcp=lies), patience=replace(HURRY, stream=0.2)) as here:
            assert await asks(here, "a") == [(0, wire.SERVFAIL, [])]
            assert (here.bound, here.faults) == ([], [])

    play(scene)


def test_truncation_s_connections_are_kept_too() -> None:
    async def scene() -> None:
        def truncated(data: bytes) -> list[bytes]:
            reply = dnslib.DNSRecord.parse(data).reply(ra=1)
            reply.header.tc = 1
            return [bytes(reply.pack())]

        upstream = FakeUpstream(truncated)
        async with world(upstream) as here:
            assert await asks(here, *"abc") == [(at, 0, ["192.0.2.1"]) for at in range(3)]
            assert (len(upstream.asked), upstream.connected) == (6, 1)

    play(scene)


def test_more_than_a_pipeline_holds_is_put_on_another_connection() -> None:
    async def scene() -> None:
        upstream = OverTcp()
        async with world(upstream) as here:
            replies = await asks(here, *(f"n{number}" for number in range(250)))
            assert [rcode for _, rcode, _ in replies] == [0] * 250
            assert 3 <= upstream.connected <= 6, "of 100 questions each, or of one that would share an id"

    play(scene)
