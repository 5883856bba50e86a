"""Datagrams by the batch, on real sockets: slots, sizes, peers, and replies that the kernel won't take."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from policy.values import Flow, address
from resolver.batch import SLOTS, Batch
from resolver.core import Counters, Pending
from resolver.repeats import Told
from resolver.udp import Send, UdpListener

ROOM = 100
HOSTS = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


@contextmanager
def bound(family: socket.AddressFamily, host: str) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as opened:
        opened.bind((host, 0))
        yield opened


@contextmanager
def pair(family: socket.AddressFamily, host: str) -> Iterator[tuple[socket.socket, Batch]]:
    """A client's socket that is connected to a batch's."""
    with bound(family, host) as ours, bound(family, host) as client:
        client.connect(ours.getsockname())
        yield client, Batch(ours, ROOM)


@pytest.mark.parametrize(("family", "host"), HOSTS, ids=["ipv4", "ipv6"])
def test_each_datagram_has_its_slot_and_its_reply_goes_back(family: socket.AddressFamily, host: str) -> None:
    with pair(family, host) as (client, batch):
        assert batch.receive(SLOTS) == 0
        said = [b"", b"one", b"x" * ROOM, b"y" * (ROOM + 5)]
        for data in said:
            client.send(data)
        assert batch.receive(SLOTS) == len(said)
        assert batch.sizes[: len(said)].tolist() == [0, 3, ROOM, ROOM], "what is too long is cut"
        slots = [bytes(batch.octets[at * ROOM : at * ROOM + size]) for at, size in enumerate(batch.sizes[:4])]
        assert slots == [data[:ROOM] for data in said]
        name = batch.name(0)
        assert batch.peer(name) == (address(host), client.getsockname()[1])
        for slot in range(4):
            batch.put(slot, name, b"reply %d" % slot)
        assert batch.send(1, 2) == 2
        assert [client.recv(99) for _ in range(2)] == [b"reply 1", b"reply 2"]


def test_no_more_is_taken_than_there_are_slots() -> None:
    with pair(*HOSTS[0]) as (client, batch):
        for number in range(SLOTS + 3):
            client.send(b"%d" % number)
        assert [batch.receive(10), batch.receive(SLOTS), batch.receive(SLOTS)] == [10, SLOTS - 7, 0]


class NobodyAsks:
    """A server for a listener that nobody asks anything."""

    def __init__(self) -> None:
        self.counters = Counters()

    def told(self, client: Flow, now: float) -> Told | None:
        raise NotImplementedError

    def take(self, data: bytes, client: Flow, now: float, told: Told | None = None) -> bytes | Pending | None:
        raise NotImplementedError

    def forward(self, pending: Pending, send: Send) -> None:
        raise NotImplementedError

    def clock(self) -> float:
        return 0.0


def test_a_reply_without_a_way_back_costs_no_other() -> None:
    """Port 0 can't be sent to: the kernel refuses that one, wherever it stands."""

    async def scene() -> None:
        with bound(*HOSTS[0]) as ours, bound(*HOSTS[0]) as client:
            server = NobodyAsks()
            listener = UdpListener(ours, server, asyncio.get_running_loop())
            good = (
                socket.AF_INET.to_bytes(2, sys.byteorder)
                + client.getsockname()[1].to_bytes(2)
                + b"\x7f\0\0\1"
                + bytes(8)
            )
            bad = good[:2] + bytes(2) + good[4:]
            names = [bad, good, bad, bad, good, *[good] * SLOTS, bad]
            for number, name in enumerate(names):
                listener.put_out(name, b"%d" % number)
            listener.flush()
            got = [client.recv(99) for _ in range(2 + SLOTS)]
            assert got == [b"%d" % number for number, name in enumerate(names) if name is good]
            assert server.counters.unsent == 4
            listener.close()

    asyncio.run(scene())
