"""Port 53 is the resolver's, and nobody reaches the resolver's own port."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Literal

import pytest

from tests.firewall.street import (
    ALLOWED,
    BOTH,
    KERNEL,
    KINDS,
    LOOPBACK,
    PLAN,
    REFUSALS,
    RESOLVER,
    STRANGER,
    Kind,
    Street,
    guarding,
    nothing_arrived,
    refusal,
)

pytestmark = KERNEL


TARGETS = {
    "a foreign resolver": STRANGER,
    "loopback": {4: "127.0.0.1", 6: "::1"},
    "a stub": {4: "127.0.0.53", 6: "::1"},
    "our own address": {4: "10.77.0.1", 6: "fd77::1"},
}


@BOTH
@KINDS
@pytest.mark.parametrize("where", TARGETS)
def test_port_53_is_the_resolver_s_wherever_it_was_sent(street: Street, version: int, kind: Kind, where: str) -> None:
    far = (TARGETS[where][version], 53)
    mine = (LOOPBACK[version], RESOLVER)
    with guarding(street) as guard, street.inside.socket(version, kind) as client:
        if kind == socket.SOCK_STREAM:
            with street.inside.listen(version, *mine) as resolver:
                client.connect(far)
                resolver.accept()[0].close()
                assert client.recv(1) == b""
        else:
            with street.inside.receive(version, *mine) as resolver:
                client.connect(far)  # so that an answer from any other address would not be taken
                client.send(b"question")
                question, asker = resolver.recvfrom(100)
                resolver.sendto(question[::-1], asker)
                assert client.recv(100) == b"noitseuq"
        assert guard.listener.flows == []


@BOTH
@KINDS
@pytest.mark.parametrize("inbound", ["closed", "open"])
@pytest.mark.parametrize("where", ["loopback", "our own address"])
def test_nobody_talks_to_the_resolver_s_port_directly(
    street: Street, version: int, kind: Kind, where: str, inbound: Literal["open", "closed"]
) -> None:
    plan = replace(PLAN, inbound=inbound)
    far = (TARGETS[where][version], RESOLVER)
    resolver = (street.inside.receive if kind == socket.SOCK_DGRAM else street.inside.listen)(version, *far)
    with resolver, guarding(street, plan) as guard, street.inside.socket(version, kind) as client:
        assert refusal(client, far) in REFUSALS
        assert nothing_arrived(resolver)
        assert guard.table.counters()["direct"] == 1


@BOTH
@pytest.mark.parametrize("inbound", ["closed", "open"])
def test_nobody_outside_talks_to_the_resolver_s_port(
    street: Street, version: int, inbound: Literal["open", "closed"]
) -> None:
    far = (street.inside.at[version], RESOLVER)
    plan = replace(PLAN, inbound=inbound)
    with (
        street.inside.listen(version, *far) as resolver,
        guarding(street, plan) as guard,
        street.outside.tcp(version) as client,
    ):
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect(far)
        assert nothing_arrived(resolver)
        assert guard.table.counters()["direct"] >= 1
        assert guard.listener.flows == []


def test_a_client_whose_port_is_the_resolver_s_gets_its_answers(street: Street) -> None:
    far = (STRANGER[4], ALLOWED)
    with street.outside.listen(4, *far), guarding(street), street.inside.tcp(4) as client:
        client.bind((street.inside.at[4], RESOLVER))
        client.connect(far)


@BOTH
def test_a_dns_flow_older_than_the_table_does_not_escape_redirection(street: Street, version: int) -> None:
    street.inside.run("nft", "table inet tracking { chain out { type filter hook output priority 0; ct state new; }; }")
    far = (STRANGER[version], 53)
    with street.outside.receive(version, *far) as sink, street.inside.udp(version) as client:
        client.connect(far)
        client.send(b"before")
        assert sink.recv(10) == b"before"
        with guarding(street) as guard:
            assert refusal(client, far) in REFUSALS
            assert nothing_arrived(sink)
            assert guard.table.counters()["escaped"] == 1
