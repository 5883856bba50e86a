"""Towards the upstreams, on real sockets: forgeries, silence, truncation, loops."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable

import dnslib
import pytest

from resolver import wire
from resolver.exchange import Patience
from resolver.upstreams import Upstream, parse_upstream
from tests.resolver.world import HURRY, FakeUpstream, answer, honest, play, question, seen, silent, world


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
