"""DNS through the guard: every port-53 packet, judged before anything goes upstream, bound before it is answered."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e import fresh
from tests.e2e.inside import Inside, Laptop, extended_errors, question

pytestmark = pytest.mark.kernel

BLOCKED, NO_REACHABLE_AUTHORITY, NETWORK_ERROR = 15, 22, 23  # RFC 8914 section 4
POLICY = f"{atlas.ALLOWED_NAME}\n*.{atlas.ALLOWED_NAME}\n*.{atlas.WILDCARD_ZONE}\n"
SERVERS = [
    *atlas.UPSTREAM.addresses,
    *atlas.EVIL_NAMESERVER.addresses,  # a foreign resolver
    atlas.EVIL.v4,  # no resolver at all
    "192.0.2.200",  # nobody
    "2001:db8::200",
    "127.0.0.1",
    "127.0.0.53",
    "::1",
]


@pytest.fixture(scope="module")
def laptop(world: Playground, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    return Laptop(world, tmp_path_factory.mktemp("dns"))


@pytest.fixture(scope="module")
def inside(laptop: Laptop) -> Iterator[Inside]:
    with laptop.agent(POLICY) as inside:
        yield inside


def ask(inside: Inside, name: str, qtype: str = "A", server: str = "127.0.0.1", way: str = "udp") -> DNSRecord:
    asked = question(name, qtype)
    said = inside.dns(server, way, asked)
    assert said["outcome"] == "answered", said
    answer = DNSRecord.parse(bytes.fromhex(said["reply"]))
    assert answer.header.id == int(asked[:4], 16)
    assert answer.header.qr
    return answer


@pytest.mark.parametrize("way", ["udp", "tcp"])
@pytest.mark.parametrize("server", SERVERS)
def test_whatever_server_is_asked_dnsfw_answers(inside: Inside, world: Playground, server: str, way: str) -> None:
    mine = secrets.token_hex(8)
    for qtype, address in (("A", atlas.SHARED.v4), ("AAAA", atlas.SHARED.v6)):
        answer = ask(inside, f"{mine}.{atlas.WILDCARD_ZONE}", qtype, server, way)
        assert [str(record.rdata) for record in answer.rr] == [address]
    asked = [arrival for arrival in world.arrivals(mine) if arrival.way.startswith("dns")]
    assert {arrival.destination for arrival in asked} == {(atlas.UPSTREAM.v4, 53)}


@pytest.mark.parametrize("way", ["udp", "tcp"])
@pytest.mark.parametrize("server", SERVERS)
def test_a_denied_name_is_answered_at_once(inside: Inside, server: str, way: str) -> None:
    answer = ask(inside, atlas.EVIL_ZONE, "A", server, way)
    assert answer.header.rcode == RCODE.NXDOMAIN
    assert extended_errors(answer) == [BLOCKED]
    (soa,) = answer.auth
    assert soa.rtype == QTYPE.SOA
    assert 0 < soa.ttl <= 60
    assert answer.rr == []


@pytest.mark.parametrize("way", ["udp", "tcp"])
def test_nothing_goes_upstream_for_a_denied_name(inside: Inside, world: Playground, way: str) -> None:
    """Not a frame. An allowed question that is asked afterwards arrives: the judge is awake."""
    denied, allowed = secrets.token_hex(8), secrets.token_hex(8)
    for qtype in ("A", "AAAA", "TXT", "HTTPS", "MX", "ANY"):
        ask(inside, f"{denied}.{atlas.EVIL_ZONE}", qtype, atlas.EVIL_NAMESERVER.v4, way)
    ask(inside, f"{allowed}.{atlas.WILDCARD_ZONE}")
    assert world.arrivals(allowed, within=2)
    assert world.arrivals(denied) == []


def test_a_client_sees_its_own_case_and_the_whole_chain(inside: Inside) -> None:
    answer = ask(inside, "WwW.AlLoWeD.eXaMpLe")
    assert str(answer.q.qname) == "WwW.AlLoWeD.eXaMpLe."
    alias, address = answer.rr
    assert (alias.rtype, str(alias.rdata)) == (QTYPE.CNAME, f"{atlas.ALLOWED_NAME}.")
    assert str(address.rdata) == atlas.ALLOWED.v4


def test_a_long_answer_is_fetched_over_tcp_and_truncated_for_udp(inside: Inside, world: Playground) -> None:
    world.forget()
    assert ask(inside, atlas.BIG_NAME).header.tc
    assert len(ask(inside, atlas.BIG_NAME, way="tcp").rr) == 100
    ways = [arrival.way for arrival in world.arrivals() if arrival.destination == (atlas.UPSTREAM.v4, 53)]
    assert "dns-tcp" in ways


def test_a_program_resolves_as_ever(inside: Inside) -> None:
    """By the C library, with what /etc/resolv.conf says inside."""
    assert inside.resolve(atlas.ALLOWED_NAME) == sorted(atlas.ALLOWED.addresses)
    assert "not known" in inside.resolve(atlas.EVIL_ZONE)
    assert "nameserver 127.0.0.1\n" in inside.read("/etc/resolv.conf")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1"])
def test_nobody_talks_to_the_resolver_but_by_port_53(inside: Inside, address: str) -> None:
    listed = inside.outside("ss", "--no-header", "-lntu", "src", address).stdout + inside.outside("ss", "-lntuH").stdout
    ports = {int(line.split()[4].rpartition(":")[2]) for line in listed.splitlines()}
    assert ports
    for port in ports:
        assert inside.tcp(address, port, patience=1)["outcome"] == "ECONNREFUSED"
        assert inside.udp(address, port, "x" * 40, patience=1)["outcome"] not in {"answered", "timeout"}


def test_refused_instead_of_nxdomain(laptop: Laptop) -> None:
    with laptop.agent(POLICY, "--refused") as inside:
        for way in ("udp", "tcp"):
            answer = ask(inside, atlas.EVIL_ZONE, way=way)
            assert answer.header.rcode == RCODE.REFUSED
            assert extended_errors(answer) == [BLOCKED]


def test_a_silent_upstream_is_left_for_the_next(laptop: Laptop, world: Playground) -> None:
    servers = [part for each in (atlas.SILENT_UPSTREAM.v4, atlas.SECOND_UPSTREAM.v6) for part in ("--upstream", each)]
    mine = secrets.token_hex(8)
    with laptop.agent(POLICY, *servers) as inside:
        answer = ask(inside, f"{mine}.{atlas.WILDCARD_ZONE}")
        status, said = inside.leave()
    assert [str(record.rdata) for record in answer.rr] == [atlas.SHARED.v4]
    asked = [arrival.destination[0] for arrival in world.arrivals(mine) if arrival.way == "dns-udp"]
    assert asked == [atlas.SILENT_UPSTREAM.v4, atlas.SECOND_UPSTREAM.v6]
    assert (status, "got no answer" in said) == (0, False)


DEAD_UPSTREAMS = {
    atlas.SILENT_UPSTREAM.v4: NO_REACHABLE_AUTHORITY,
    f"[{atlas.SILENT_UPSTREAM.v6}]": NO_REACHABLE_AUTHORITY,
    f"{atlas.ALLOWED.v4}:5300": NETWORK_ERROR,  # an ICMP error comes back
    f"[{atlas.ALLOWED.v6}]:5300": NETWORK_ERROR,
}


@pytest.fixture(scope="module")
def dead(laptop: Laptop) -> dict[str, tuple[Any, int, str]]:
    """What a guard with each of them answers, its status and its last words: all wait at the same time."""
    with laptop.agents(POLICY, *(["--upstream", upstream] for upstream in DEAD_UPSTREAMS)) as agents:
        for inside in agents:
            inside.tell("dns", ("127.0.0.1", "udp", question(atlas.ALLOWED_NAME)), {})
        said = [(inside.hear(), *inside.leave()) for inside in agents]
    return dict(zip(DEAD_UPSTREAMS, said, strict=True))


@pytest.mark.parametrize("upstream", DEAD_UPSTREAMS, ids=["silent v4", "silent v6", "closed v4", "closed v6"])
def test_dead_upstreams(dead: dict[str, tuple[Any, int, str]], upstream: str) -> None:
    asked, status, said = dead[upstream]
    answer = DNSRecord.parse(bytes.fromhex(asked["reply"]))
    assert (answer.header.rcode, extended_errors(answer)) == (RCODE.SERVFAIL, [DEAD_UPSTREAMS[upstream]])
    assert asked["ms"] < 5000  # most stub resolvers' patience
    assert f"got no answer from {upstream}; name another with --upstream" in said
    assert status == 0


@pytest.fixture
def fresh_internet(world: Playground) -> Iterator[str]:
    """The address of a name server (port 5353) that gives every name an address of its own."""
    enter = ["nsenter", "-t", str(world._internet.pid), "-n"]
    route = ["ip", "route", "{}", "local", fresh.NETWORK_V4, "dev", "lo"]
    subprocess.run([*enter, *(word.format("add") for word in route)], check=True)
    command = [*enter, sys.executable, fresh.__file__, atlas.EVIL.v4]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield f"{atlas.EVIL.v4}:5353"
        server.communicate()
    subprocess.run([*enter, *(word.format("del") for word in route)], check=True)


def test_a_connect_never_races_its_own_lookup(laptop: Laptop, fresh_internet: str) -> None:
    """Two hundred times: a name nobody has asked for, an address nobody has had, and a connect at once."""
    names = [[f"n-{number}.fresh.example", family] for number in range(100) for family in ("AF_INET", "AF_INET6")]
    policy = "\n".join(f"{name}:{fresh.PORT}" for name, _ in names)
    with laptop.agent(policy, "--upstream", fresh_internet) as inside:
        assert inside.tcp(str(fresh.FIRST_V4), fresh.PORT)["outcome"] == "ECONNREFUSED"  # before anybody asked
        assert inside.race(names, fresh.PORT) == []
