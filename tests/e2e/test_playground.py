"""The playground is what it claims to be: every server answers and records, and nothing outlives it."""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.control import PACKAGE_ROOT
from dnsfw.playground.world import Playground

pytestmark = pytest.mark.kernel("root", "netns")

V4, V6 = "-4", "-6"


def token() -> str:
    return secrets.token_hex(8)


def fetch(world: Playground, family: str, url: str, *options: str) -> str:
    done = world.run(["curl", "-sS", family, "--max-time", "3", "--cacert", str(world.authority), *options, url])
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("family", [V4, V6])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        (atlas.ALLOWED_NAME, atlas.ALLOWED),
        (atlas.ALIAS_NAME, atlas.ALLOWED),
        (atlas.SHARED_NAME, atlas.SHARED),
        (atlas.EVIL_SHARED_NAME, atlas.SHARED),
        (atlas.EVIL_ZONE, atlas.EVIL),
        (atlas.DOH_NAME, atlas.DOH),
    ],
)
def test_every_site_answers_by_name_and_records(world: Playground, family: str, name: str, place: atlas.Place) -> None:
    mine = token()
    assert fetch(world, family, f"https://{name}/{mine}") == f"hello from {name}\n"
    (arrival,) = [a for a in world.arrivals(mine, within=2) if a.way == "https"]
    assert arrival.destination == (place.v4 if family == V4 else place.v6, 443)
    assert arrival.payload.decode().startswith(f"sni={name} host={name} GET /{mine}")


def test_the_two_names_of_the_shared_address_are_told_apart_by_sni(world: Playground) -> None:
    mine = token()
    wire = f"{atlas.EVIL_SHARED_NAME}:443:{atlas.SHARED.v4}"
    fetch(world, V4, f"https://{atlas.EVIL_SHARED_NAME}/{mine}", "--resolve", wire)
    (arrival,) = [a for a in world.arrivals(mine, within=2) if a.way == "https"]
    assert arrival.payload.startswith(f"sni={atlas.EVIL_SHARED_NAME} ".encode())


ASK = """
import socket, ssl, sys
from dnslib import DNSRecord
address, way, name, patience = sys.argv[1:]
question = DNSRecord.question(name).pack()
family = socket.AF_INET6 if ":" in address else socket.AF_INET
if way == "dns-udp":
    asked = socket.socket(family, socket.SOCK_DGRAM)
    asked.settimeout(float(patience)); asked.sendto(question, (address, 53)); answer = asked.recv(4096)
else:
    asked = socket.create_connection((address, 853 if way == "dot" else 53), 2)
    if way == "dot":
        context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
        asked = context.wrap_socket(asked)
    asked.sendall(len(question).to_bytes(2) + question)
    stream = asked.makefile("rb"); answer = stream.read(int.from_bytes(stream.read(2)))
reply = DNSRecord.parse(answer)
print("TC" if reply.header.tc else "", *(str(record.rdata) for record in reply.rr))
"""


def ask(world: Playground, address: str, way: str, name: str) -> list[str]:
    done = world.run([sys.executable, "-c", ASK, address, way, name, "2"])
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("address", "way"),
    [(address, way) for address in atlas.UPSTREAM.addresses for way in ("dns-udp", "dns-tcp")]
    + [(address, way) for address in atlas.EVIL_NAMESERVER.addresses for way in ("dns-udp", "dns-tcp", "dot")],
)
def test_every_nameserver_answers_and_records(world: Playground, address: str, way: str) -> None:
    mine = token()
    assert ask(world, address, way, f"{mine}.{atlas.WILDCARD_ZONE}") == [atlas.SHARED.v4]
    assert way in {arrival.way for arrival in world.arrivals(mine, within=2)}


def test_a_long_answer_is_truncated_over_udp_only(world: Playground) -> None:
    assert ask(world, atlas.UPSTREAM.v4, "dns-udp", atlas.BIG_NAME) == ["TC"]
    assert len(ask(world, atlas.UPSTREAM.v4, "dns-tcp", atlas.BIG_NAME)) == 100


def test_the_silent_upstream_records_and_does_not_answer(world: Playground) -> None:
    mine = token()
    done = world.run([sys.executable, "-c", ASK, atlas.SILENT_UPSTREAM.v4, "dns-udp", f"{mine}.test", "0.5"])
    assert "TimeoutError" in done.stderr
    assert [arrival.way for arrival in world.arrivals(mine) if arrival.way != "frame"] == ["dns-udp"]


@pytest.mark.parametrize("address", atlas.EVIL.addresses)
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_the_sinks_record_by_port(world: Playground, address: str, kind: str) -> None:
    mine = token()
    script = f"exec 3<>/dev/{kind}/{address}/4444; printf {mine} >&3; head -c 2 <&3"
    assert world.run(["bash", "-c", script]).stdout == "ok"
    (arrival,) = [a for a in world.arrivals(mine, within=2) if a.way == kind]
    assert (arrival.destination, arrival.payload) == ((address, 4444), mine.encode())


def test_the_tap_sees_a_frame_that_no_server_wants(world: Playground) -> None:
    mine = token()
    odd = f"import socket; s = socket.socket(2, 3, 99); s.sendto(b'{mine}', ('{atlas.EVIL.v4}', 0))"
    assert world.run([sys.executable, "-c", odd]).returncode == 0
    (arrival, *_) = world.arrivals(mine, within=2)
    assert (arrival.way, arrival.source[0], arrival.destination[0]) == ("frame", atlas.LAPTOP.v4, atlas.EVIL.v4)


def test_what_was_not_sent_has_not_arrived(world: Playground) -> None:
    assert world.arrivals(token()) == []


def test_the_stub_resolver_forwards(loopback_world: Playground) -> None:
    assert loopback_world.run(["cat", "/etc/resolv.conf"]).stdout == "nameserver 127.0.0.53\n"
    mine = token()
    found = loopback_world.run(["getent", "ahostsv4", f"{mine}.{atlas.WILDCARD_ZONE}"]).stdout
    assert found.split()[0] == atlas.SHARED.v4
    (arrival, *_) = [a for a in loopback_world.arrivals(mine, within=2) if a.way == "dns-udp"]
    assert arrival.destination == (atlas.UPSTREAM.v4, 53)


def test_without_a_default_route_the_sites_are_still_there(routeless_world: Playground) -> None:
    assert "default" not in routeless_world.run(["ip", "route"]).stdout
    assert "default" not in routeless_world.run(["ip", "-6", "route"]).stdout
    assert fetch(routeless_world, V6, f"https://{atlas.ALLOWED_NAME}/") == f"hello from {atlas.ALLOWED_NAME}\n"


def test_a_command_on_a_terminal(world: Playground) -> None:
    done = world.run_on_terminal(["sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo yes; exit 7"])
    assert (done.stdout, done.returncode) == ("yes\r\n", 7)


def test_the_machine_itself_is_untouched(world: Playground) -> None:
    here = subprocess.run(["ip", "-o", "address"], check=True, capture_output=True, text=True).stdout
    assert atlas.LAPTOP.v4 not in here
    assert Path("/etc/resolv.conf").read_text() != (world.directory / "resolv.conf").read_text()


KILLED = """
import os, sys
from dnsfw.playground.world import Playground
with Playground() as world:
    print(world.directory, world._internet.pid, world._laptop.pid, flush=True)
    sys.stdin.read()
"""


def test_sigkill_leaves_nothing(world: Playground) -> None:
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PACKAGE_ROOT
    ) as process:
        assert process.stdout is not None
        directory, *pids = process.stdout.readline().split()
        children = [os.pidfd_open(int(pid)) for pid in pids]
        process.send_signal(signal.SIGKILL)
    for child in children:
        wait_for_end(child)
        os.close(child)
    assert not Path(directory).exists()


def wait_for_end(pidfd: int) -> None:
    assert select.select([pidfd], [], [], 5)[0], "a process of the playground outlived it"
