"""`dnsfw up` on a laptop: the host is guarded, and what was there before goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground, Setting
from tests.e2e.guards import up

pytestmark = pytest.mark.kernel

RULESET = ["sh", "-c", "nft list ruleset; iptables-nft-save | grep -v '^#'; sysctl -a 2>/dev/null | grep forwarding"]
# Connects, says so, and sends what it is told to on its standard input.
TALKER = """
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print("connected", flush=True)
for line in sys.stdin:
    peer.sendall(line.encode())
"""
# Listens, and answers each connection's first line.
LISTENER = """
import socket
with socket.create_server(("::", 2222), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    print("listening", flush=True)
    while True:
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"answer to " + peer.recv(100))
"""


def fetch(host: Playground, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return host.run(["curl", "-sS", "--max-time", "5", "--cacert", str(host.authority), *options, url])


def from_the_internet(host: Playground, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    pid = str(host._internet.pid)
    inside = ["nsenter", "-t", pid, "-n", *command]
    return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=20)


def test_the_host_is_guarded_and_as_it_was_afterwards(host: Playground, tmp_path: Path) -> None:
    before = host.run(RULESET).stdout
    with up(host, tmp_path) as guard:
        assert "hello" in fetch(host, f"https://{atlas.ALLOWED_NAME}/").stdout
        assert fetch(host, f"https://{atlas.EVIL_ZONE}/").returncode == 6  # curl: could not resolve
        for place in (atlas.EVIL.v4, f"[{atlas.EVIL.v6}]"):
            assert fetch(host, f"https://{place}:8443/").returncode == 7  # curl: could not connect
        guard.send_signal(signal.SIGINT)
        assert guard.stderr is not None
        summary = guard.stderr.read()
    assert guard.returncode == 0
    assert f"resolve {atlas.EVIL_ZONE}" in summary
    assert f"to allow it: [{atlas.EVIL.v6}]:8443" in summary
    assert host.run(RULESET).stdout == before
    assert fetch(host, f"http://{atlas.EVIL.v4}:8443/").returncode == 1  # curl: that is no HTTP


@pytest.mark.parametrize("address", atlas.EVIL.addresses)
def test_a_connection_that_was_up_before_goes_on_and_a_new_one_does_not(
    host: Playground, tmp_path: Path, address: str
) -> None:
    talker = host.popen(
        [sys.executable, "-c", TALKER, address, "4444"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with talker:
        assert talker.stdin is not None
        assert talker.stdout is not None
        assert talker.stdout.readline() == "connected\n"
        with up(host, tmp_path):
            talker.stdin.write("5ea1d1a900\n")
            talker.stdin.flush()
            assert host.arrivals("5ea1d1a900", within=5)
            again = host.run([sys.executable, "-c", TALKER, address, "4444"], stdin="f4e5b00077\n")
            assert "ConnectionRefusedError" in again.stderr
        talker.stdin.close()
    assert not host.arrivals("f4e5b00077")


@pytest.mark.parametrize("address", atlas.LAPTOP.addresses)
def test_inbound_connections_go_on(host: Playground, tmp_path: Path, address: str) -> None:
    """An administrator's SSH session comes in like this one."""
    server = host.popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True)
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        ask = f"import socket; c = socket.create_connection(({address!r}, 2222), 5); c.send(b'x'); print(c.recv(99))"
        try:
            with up(host, tmp_path):
                assert "answer to x" in from_the_internet(host, [sys.executable, "-c", ask]).stdout
        finally:
            server.kill()


def test_audit_denies_nothing_and_tells_what_it_would_have(host: Playground, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with up(host, tmp_path, "--audit", "--journal", str(journal)) as guard:
        assert fetch(host, f"https://{atlas.EVIL_ZONE}/").stdout
        guard.send_signal(signal.SIGINT)
        assert guard.stderr is not None
        assert "would have been denied" in guard.stderr.read()
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {record["mode"] for record in records} == {"audit"}
    assert any(record["decision"] == "deny" and record["subject"].get("name") == atlas.EVIL_ZONE for record in records)


def test_killed_it_leaves_the_host_closed_until_down(host: Playground, tmp_path: Path) -> None:
    before = host.run(RULESET).stdout
    with up(host, tmp_path) as guard:
        guard.kill()
        guard.wait()
    for place in (atlas.ALLOWED.v4, f"[{atlas.ALLOWED.v6}]"):
        hurried = fetch(host, f"https://{place}/", "--max-time", "0.5")
        assert hurried.returncode in (7, 28)  # could not connect, timed out
    for _ in range(2):
        assert host.run(host.dnsfw("down")).returncode == 0
    assert host.run(RULESET).stdout == before
    assert "hello" in fetch(host, f"https://{atlas.ALLOWED_NAME}/").stdout


def test_an_up_takes_over_from_one_that_was_killed(host: Playground, tmp_path: Path) -> None:
    before = host.run(RULESET).stdout
    with up(host, tmp_path) as guard:
        guard.kill()
        guard.wait()
    with up(host, tmp_path):
        assert "hello" in fetch(host, f"https://{atlas.ALLOWED_NAME}/").stdout
        second = host.run(host.dnsfw("up"))
        assert second.returncode == 125
        assert "guards this host already" in second.stderr
    assert host.run(RULESET).stdout == before


def test_a_dead_engine_leaves_the_host_closed_until_the_next_one_is_there(host: Playground, tmp_path: Path) -> None:
    with up(host, tmp_path) as guard:
        assert guard.stderr is not None
        (engine,) = Path(f"/proc/{guard.pid}/task/{guard.pid}/children").read_text().split()
        guard.send_signal(signal.SIGSTOP)  # so that nobody starts the next one
        os.kill(int(engine), signal.SIGKILL)
        assert fetch(host, f"https://{atlas.ALLOWED.v4}/", "--max-time", "0.5").returncode in (7, 28)
        guard.send_signal(signal.SIGCONT)
        assert "engine died once, the last one of signal 9 (SIGKILL)" in guard.stderr.readline()
        assert "hello" in fetch(host, f"https://{atlas.ALLOWED_NAME}/").stdout
        guard.send_signal(signal.SIGINT)
    assert guard.returncode == 0


def test_a_resolver_on_the_hosts_own_loopback_needs_an_upstream(tmp_path: Path) -> None:
    with Playground(Setting(stub_resolver=True)) as host:
        refused = host.run(host.dnsfw("up"))
        assert refused.returncode == 125
        assert "--upstream" in refused.stderr
        with up(host, tmp_path, "--upstream", atlas.UPSTREAM.v4):
            assert "hello" in fetch(host, f"https://{atlas.ALLOWED_NAME}/").stdout


def test_a_queue_that_another_program_holds_is_an_error_that_says_so(host: Playground, tmp_path: Path) -> None:
    before = host.run(RULESET).stdout
    hold = "import sys; from netfilterqueue import NetfilterQueue as Q; q = Q(); q.bind(53, print); print(); input()"
    holder = host.popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "\n"
        refused = host.run(host.dnsfw("up"))
        holder.kill()
    assert refused.returncode == 125
    assert "queue 53 can't be had" in refused.stderr
    assert host.run(RULESET).stdout == before
