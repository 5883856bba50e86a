"""Packets through the guard: denied at once unless a rule says otherwise; what is allowed runs in the kernel."""

from __future__ import annotations

import os
import secrets
import select
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import PYTHON, Inside, Laptop, question

pytestmark = pytest.mark.kernel

ECHO = atlas.ECHO_PORT
POLICY = f"""
{atlas.ALLOWED.v4}:{ECHO}|{atlas.CHARGEN_PORT}
[{atlas.ALLOWED.v6}]:{ECHO}|{atlas.CHARGEN_PORT}
{atlas.ALLOWED.v4}:{ECHO}/udp
[{atlas.ALLOWED.v6}]:{ECHO}/udp
{atlas.ALLOWED.v4}/icmp
{atlas.ALLOWED.v6}/icmp
{atlas.ALLOWED_NAME}:80
"""
QUICK = 50.0  # milliseconds
# What a guarded program may not open at all; here with every capability, to see the packet filter itself.
SEND_RAW = """
import socket, sys
address, proto, data = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_RAW, proto) as sock:
    try:
        sock.sendto(data, (address, 0))
    except PermissionError:  # what the packet filter's reject is to the sender of some protocols
        pass
"""
ICMP_ECHO, ICMPV6_ECHO = "0800f7ff00000000", "8000000000000000"


@pytest.fixture(scope="module")
def laptop(world: Playground, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    return Laptop(world, tmp_path_factory.mktemp("packets"))


@pytest.fixture(scope="module")
def inside(laptop: Laptop) -> Iterator[Inside]:
    with laptop.agent(POLICY) as inside:
        yield inside


@pytest.mark.parametrize("address", [*atlas.EVIL.addresses, *atlas.SHARED.addresses, "192.0.2.1", "2001:db8::1"])
def test_tcp_is_denied_at_once(inside: Inside, address: str) -> None:
    tried = [inside.tcp(address, port) for port in (443, 80, *atlas.TCP_SINK_PORTS, 65535)]
    assert {each["outcome"] for each in tried} == {"ECONNREFUSED"}
    assert statistics.median(each["ms"] for each in tried) < QUICK


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "unconnected"])
@pytest.mark.parametrize("address", [*atlas.EVIL.addresses, *atlas.SHARED.addresses])
def test_udp_is_denied_and_a_connected_socket_told_at_once(
    inside: Inside, world: Playground, address: str, *, connected: bool
) -> None:
    mine = secrets.token_hex(8)
    for port in atlas.UDP_SINK_PORTS:
        said = inside.udp(address, port, mine, connected=connected, patience=0.1)
        assert said["outcome"] in ({"EHOSTUNREACH", "EACCES", "EPERM"} if connected else {"timeout", "EPERM", "EACCES"})
        assert not connected or said["ms"] < QUICK
    assert nothing_arrived(inside, world, mine)


def nothing_arrived(inside: Inside, world: Playground, token: str) -> bool:
    """Not a frame with `token`, by the time that something sent later is there."""
    later = secrets.token_hex(8)
    assert inside.tcp(atlas.ALLOWED.v4, ECHO, later)["reply"] == later
    assert world.arrivals(later, within=2)
    return not world.arrivals(token)


@pytest.mark.parametrize(("denied", "allowed"), list(zip(atlas.EVIL.addresses, atlas.ALLOWED.addresses, strict=True)))
def test_an_echo_is_judged_like_all_else(inside: Inside, denied: str, allowed: str) -> None:
    """Whoever may ping on the host (here anybody) may do so inside, to where a rule says."""
    refused = inside.ping(denied)
    assert refused["outcome"] in {"EHOSTUNREACH", "EACCES", "EPERM"}
    assert refused["ms"] < QUICK
    assert inside.ping(allowed)["reply"] == "hello"


@pytest.mark.parametrize(
    "proto", [1, 58, 47, 50, 99, 132, 136], ids=["icmp", "icmpv6", "gre", "esp", "unknown", "sctp", "udp-lite"]
)
@pytest.mark.parametrize("address", atlas.EVIL.addresses)
def test_no_other_protocol_leaves(inside: Inside, world: Playground, address: str, proto: int) -> None:
    mine = secrets.token_hex(8)
    head = {1: ICMP_ECHO, 58: ICMPV6_ECHO}.get(proto, "00" * 12)
    done = inside.outside("python3", "-c", SEND_RAW, address, str(proto), head + mine)
    assert done.returncode == 0, done.stderr
    assert nothing_arrived(inside, world, mine)


def test_a_packets_mark_is_worth_nothing(inside: Inside, world: Playground) -> None:
    """SO_MARK with every value that means something to our own chains (here with CAP_NET_ADMIN)."""
    script = """
import socket, struct, sys
token, addresses, *marks = sys.argv[1:]
for address in addresses.split():
    for mark in marks:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, 36, struct.pack("I", int(mark, 0)))
            try: sock.sendto(token.encode(), (address, 4444))
            except OSError: pass
"""
    mine = secrets.token_hex(8)
    marks = [hex(state << 24) for state in (0x01, 0x10, 0x11, 0x20, 0x30, 0x40, 0x50, 0xFF)]
    done = inside.outside("python3", "-c", script, mine, " ".join(atlas.EVIL.addresses), *marks)
    assert done.returncode == 0, done.stderr
    assert nothing_arrived(inside, world, mine)


@pytest.mark.parametrize("address", atlas.ALLOWED.addresses)
def test_what_a_rule_names_leaves(inside: Inside, address: str) -> None:
    assert inside.tcp(address, ECHO, "hello")["reply"] == "hello"
    for connected in (True, False):
        assert inside.udp(address, ECHO, "hello", connected=connected)["reply"] == "hello"
    assert inside.tcp(address, atlas.DISCARD_PORT)["outcome"] == "ECONNREFUSED"  # another port of the same address


def test_a_bare_address_is_not_a_name_until_the_name_is_resolved(inside: Inside) -> None:
    for address in atlas.ALLOWED.addresses:
        assert inside.tcp(address, 80)["outcome"] == "ECONNREFUSED"
    assert inside.resolve(atlas.ALLOWED_NAME) == sorted(atlas.ALLOWED.addresses)
    for address in atlas.ALLOWED.addresses:
        assert inside.tcp(address, 80, f"GET / HTTP/1.0\r\nHost: {atlas.ALLOWED_NAME}\r\n\r\n")["reply"].startswith(
            "HTTP/1"
        )
        assert inside.tcp(address, 443)["outcome"] == "ECONNREFUSED"  # of the same name, without a rule


@pytest.mark.parametrize("address", atlas.ALLOWED.addresses)
def test_an_allowed_flow_costs_the_queue_one_packet(inside: Inside, address: str) -> None:
    before = queued(inside)
    assert inside.tcp(address, ECHO, "hello", keep=address)["reply"] == "hello"
    for _ in range(20):
        assert inside.again(address, "more") == "more"
    assert queued(inside) - before == 1


def test_a_udp_conversation_costs_the_queue_one_packet_a_lease(inside: Inside) -> None:
    script = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(3)
    sock.connect((sys.argv[1], int(sys.argv[2])))
    for number in range(20):
        sock.send(b"%d" % number)
        assert sock.recv(100) == b"%d" % number
"""
    before = queued(inside)
    done = inside.run("python3", "-c", script, atlas.ALLOWED.v4, str(ECHO))
    assert done["status"] == 0, done["err"]
    assert queued(inside) - before == 1


def queued(inside: Inside) -> int:
    """The number of the last packet that the kernel put on the queue (net/netfilter/nfnetlink_queue.c, seq_show)."""
    fields = Path(f"/proc/{inside.children()[1]}/net/netfilter/nfnetlink_queue").read_text().split()
    return int(fields[7])


def test_nothing_comes_in_from_the_host(inside: Inside, world: Playground) -> None:
    """A server inside is the command's own business: it is reached from inside, and not from the host."""
    shown = inside.run("ip", "-oneline", "address", "show", "eth0", "scope", "global")["out"]
    addresses = [line.split()[3].partition("/")[0] for line in shown.splitlines()]
    assert len(addresses) == 2
    server = (
        "import socket; s = socket.create_server(('::', 8000), family=socket.AF_INET6, dualstack_ipv6=True);"
        " print('up', flush=True); [s.accept() for _ in iter(int, 1)]"
    )
    started = inside.run(
        "bash", "-c", f'exec 3< <(exec {PYTHON} -c "{server}" 2>/dev/null); read -u 3 word; echo $word'
    )
    assert started["out"] == "up\n"
    for address in addresses:
        assert inside.tcp(address, 8000)["outcome"] == "open"
        script = f"exec 3<>/dev/tcp/{address}/8000 && echo in"
        assert world.run(["timeout", "0.5", "bash", "-c", script]).stdout == ""


def test_out_of_descriptors_the_guard_denies_and_recovers(laptop: Laptop) -> None:
    """An error of our own in the middle of the work: a hundred questions wait for a silent upstream, a socket each."""
    names = [f"n{number}.{atlas.WILDCARD_ZONE}" for number in range(100)]
    policy = "\n".join([f"{atlas.ALLOWED.v4}:{ECHO}", atlas.ALLOWED_NAME, *names])
    few = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"]
    upstreams = ["--upstream", atlas.SILENT_UPSTREAM.v4, "--upstream", atlas.UPSTREAM.v4]
    script = """
import collections, socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(8)
for question in sys.argv[1:]:
    sock.sendto(bytes.fromhex(question), ("127.0.0.1", 53))
print(collections.Counter(sock.recv(4096)[3] & 15 for _ in sys.argv[1:])[2])
"""
    with laptop.agent(policy, *upstreams, prefix=few) as inside:
        inside.tell("run", ["python3", "-c", script, *map(question, names)], {})
        failed = inside.hear()  # every question has its answer, and a good part is SERVFAIL
        assert 20 < int(failed["out"]) < 100, failed
        assert inside.tcp(atlas.EVIL.v4, 443)["outcome"] == "ECONNREFUSED"
        assert inside.tcp(atlas.ALLOWED.v4, ECHO, "hello")["reply"] == "hello"
        assert inside.resolve(atlas.ALLOWED_NAME) == sorted(atlas.ALLOWED.addresses)
        status, said = inside.leave()
    assert status == 0
    assert "DNS questions got no answer" in said


def test_packets_drop_while_nobody_listens_on_the_queue(laptop: Laptop) -> None:
    """An engine that stands still answers late, one that is dead never: neither opens anything."""
    with laptop.agent(POLICY) as inside:
        assert inside.tcp(atlas.ALLOWED.v4, ECHO, "hello", keep="up")["reply"] == "hello"
        engine = inside.engine
        os.kill(engine, signal.SIGSTOP)
        for address in (*atlas.ALLOWED.addresses, *atlas.EVIL.addresses):
            assert inside.tcp(address, ECHO, patience=0.2)["outcome"] == "timeout"
        assert inside.again("up", "in the kernel") == "in the kernel"
        os.kill(engine, signal.SIGCONT)
        assert inside.tcp(atlas.ALLOWED.v6, ECHO, "hello")["reply"] == "hello"
        dead = os.pidfd_open(engine)
        os.kill(engine, signal.SIGKILL)
        assert select.select([dead], [], [], 5)[0]
        os.close(dead)
        for address in (*atlas.ALLOWED.addresses, *atlas.EVIL.addresses):
            assert inside.tcp(address, ECHO, patience=0.2)["outcome"] in {"timeout", "ECONNREFUSED"}
