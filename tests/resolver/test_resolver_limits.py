"""Too much at once: a prompt refusal for what is over the limit, and nothing lost for good."""

from __future__ import annotations

import asyncio

import pytest

from resolver import wire
from tests.resolver.world import FakeUpstream, play, question, seen, silent, world


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
