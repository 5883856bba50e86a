"""The listener on every address, on real sockets: each reply comes from the address that was asked."""

from __future__ import annotations

import asyncio
import socket

import pytest

from policy.values import address
from resolver.batch import SLOTS
from resolver.listeners import make_wide_listeners
from resolver.wide import WideBatch
from tests.resolver.world import FakeUpstream, play, question, seen, wide_world

HOSTS = ["127.0.0.1", "127.0.0.2", "127.77.0.9", "::1"]


@pytest.mark.parametrize("host", HOSTS)
def test_forwarded_denied_kept_and_repeated_answers_come_from_the_address_that_was_asked(host: str) -> None:
    """The client's socket is connected: it hears nobody else."""

    async def scene() -> None:
        async with wide_world(FakeUpstream()) as here:
            names = ["www.example.com", "evil.example", "www.example.com", "www.example.com"]
            replies = [await here.udp(question(name, ident=number), host) for number, name in enumerate(names)]
            assert [seen(reply) for reply in replies] == [
                (0, 0, ["192.0.2.1"]),
                (1, 3, []),
                (2, 0, ["192.0.2.1"]),
                (3, 0, ["192.0.2.1"]),
            ]
            assert {str(query.client.dst) for query in here.judged} == {host}
            many = await here.udp_all([question(f"{number}.example.com", ident=number) for number in range(150)], host)
            assert {seen(reply)[0] for reply in many} == set(range(150))

    play(scene)


def test_askers_of_different_addresses_in_one_batch_are_not_mixed_up() -> None:
    async def scene() -> None:
        async with wide_world(FakeUpstream()) as here:
            loop = asyncio.get_running_loop()
            clients = []
            for host in ("127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.4"):
                client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                client.connect((host, here.port))
                clients.append(client)
            for number, client in enumerate(clients):
                client.send(question("www.example.com", ident=number))
                client.send(question("evil.example", ident=number))
            async with asyncio.timeout(5):
                heard = [{seen(await loop.sock_recv(client, 4096))[:2] for _ in range(2)} for client in clients]
            assert heard == [{(number, 0), (number, 3)} for number in range(len(clients))]
            for client in clients:
                client.close()

    play(scene)


def test_a_datagram_whose_address_is_not_told_is_an_error_and_the_next_is_not() -> None:
    listeners = make_wide_listeners(0)
    ours = listeners.udp[0]
    batch = WideBatch(ours, 100)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.2", listeners.port))
        ours.setsockopt(socket.IPPROTO_IP, socket.IP_PKTINFO, 0)
        client.send(b"untold")
        with pytest.raises(OSError, match="did not say"):
            batch.receive(SLOTS)
        ours.setsockopt(socket.IPPROTO_IP, socket.IP_PKTINFO, 1)
        client.send(b"told")
        assert batch.receive(SLOTS) == 1
        name = batch.name(0)
        assert batch.here(name) == address("127.0.0.2")
        assert name[32:36] == bytes(4), "a reply is tied to no interface"
    for sock in listeners.sockets:
        sock.close()
