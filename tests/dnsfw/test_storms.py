"""More packets than can be judged: told, denied, and over at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path

import pytest

from dnsfw.engine.storms import Storms
from dnsfw.journal.lifecycle import Life
from firewall.overflow import Load
from tests.dnsfw.test_renewal import FIRST, STAYS, Guarded, under_guard
from tests.firewall.street import STRANGER, Street

ELSEWHERE = 9999
SO_SNDBUFFORCE = 32  # <asm-generic/socket.h>
FLOOD = 20_000  # datagrams, each the first of a flow


def test_what_is_lost_is_told_while_it_lasts_and_summed_at_the_end() -> None:
    loads = chain([Load(5, 10, 0), Load(7, 10, 15), Load(0, 10, 15)], repeat(Load(0, 11, 15)))
    told: list[Life] = []
    storms = Storms(lambda: next(loads), told.append, lambda: 1.5, audit=False)
    assert storms.trouble() == []

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        storms.expect(loop)
        storms.expect(loop)  # one look is planned already
        while len(told) < 2:
            await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(scene(), 5))
    storms.end()
    storms.end()
    assert [(life.turn, life.reason) for life in told] == [
        ("overflowed", "10 packets denied unjudged, 5 wait"),
        ("overflowed", "15 packets denied unjudged, 7 wait"),
        ("overflowed", "1 packet denied unjudged, 0 wait"),
    ]
    assert storms.trouble() == ["26 packets denied unjudged: too many came at once"]


def flood(street: Street, count: int) -> None:
    """So many new flows, as fast as they go; from a raw socket, whose packets need no socket each."""
    with street.inside.socket(4, socket.SOCK_RAW, socket.IPPROTO_UDP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 64 << 20)  # what waits for its verdict is the socket's
        sock.setblocking(False)
        for number in range(count):
            header = struct.pack("!4H", 1024 + number % 60_000, ELSEWHERE, 12, 0)
            try:
                sock.sendto(header + b"abcd", (STRANGER[4], 0))
            except OSError:
                continue  # denied, or dropped


def reaches(street: Street, within: float) -> bool:
    """Does a new flow that the policy allows get through? A datagram that meets a full queue is lost: ask again."""
    far, until = (STRANGER[4], STAYS), time.monotonic() + within
    with street.outside.receive(4, *far) as sink:
        sink.settimeout(0.05)
        while time.monotonic() < until:
            with street.inside.udp(4) as sock, suppress(OSError):
                sock.sendto(b"x", far)
                return sink.recv(10) == b"x"
    return False


@pytest.fixture
def storm(tmp_path: Path) -> Iterator[Guarded]:
    with under_guard(tmp_path / "policy", FIRST, journal=tmp_path / "journal") as guarded:
        yield guarded


@pytest.mark.kernel
def test_a_storm_is_denied_counted_and_reported_and_over_at_once(storm: Guarded) -> None:
    """The engine stands still for as long as the storm lasts, which is the same as being much too slow."""
    engine = int(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[-1])
    client, server = storm.connected(4, STAYS)
    with client, server, storm.street.outside.receive(4, STRANGER[4], ELSEWHERE) as sink:
        os.kill(engine, signal.SIGSTOP)
        flood(storm.street, FLOOD)
        client.sendall(b"allowed before")
        assert server.recv(100) == b"allowed before"
        os.kill(engine, signal.SIGCONT)
        assert reaches(storm.street, within=2.0)  # what waited is judged first
        sink.settimeout(0)
        with pytest.raises(BlockingIOError):
            sink.recv(1)
    finished = storm.guard.finish()
    assert finished is not None
    assert "packets denied unjudged: too many came at once" in finished.summary
    records = [json.loads(line) for line in (storm.file.parent / "journal").read_text().splitlines()]
    lost = [int(record["reason"].split()[0]) for record in records if record.get("life") == "overflowed"]
    assert sum(lost) > FLOOD / 2
    assert any(record.get("decision") == "deny" for record in records)
