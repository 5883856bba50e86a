"""`dnsfw up` on a laptop with a container behind a bridge, which has a resolver of its own in mind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground, Setting
from tests.e2e.test_up import up

pytestmark = pytest.mark.kernel

# Run on the laptop: a bridge, and a namespace behind it that lives as long as its standard input.
BEHIND_A_BRIDGE = """
set -e
echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
ip link add br0 type bridge forward_delay 0; ip link set br0 up
ip addr add 172.30.0.1/24 dev br0; ip addr add fd30::1/64 dev br0 nodad
for program in iptables-nft ip6tables-nft; do
  $program -t nat -A POSTROUTING ! -o br0 -j MASQUERADE
done
ip link add c0 master br0 up type veth peer name eth0 netns $1
nsenter -t $1 -n sh -ec '
  ip link set lo up; ip link set eth0 up
  ip addr add 172.30.0.2/24 dev eth0; ip addr add fd30::2/64 dev eth0 nodad
  ip route add default via 172.30.0.1; ip route add default via fd30::1'
until ip link show br0 | grep -q 'state UP'; do sleep 0.02; done
"""
# Asks a name server of its own for an address, as a container's libc would, then says what a connection comes to.
PROGRAM = """
import socket, struct, sys
server, name, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in server else socket.AF_INET
kind = 28 if ":" in server else 1
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
with socket.socket(family, socket.SOCK_DGRAM) as asking:
    asking.settimeout(5)
    asking.connect((server, 53))
    asking.send(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1))
    answer = asking.recv(4096)
if answer[3] & 15 or not answer[7]:
    sys.exit("no such name")
address = socket.inet_ntop(family, answer[-(16 if kind == 28 else 4):])
try:
    socket.create_connection((address, int(port)), 5).close()
except OSError as error:
    sys.exit(type(error).__name__)
print(address)
"""


@dataclass(frozen=True, slots=True)
class Container:
    laptop: Playground
    pid: int

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        inside: Sequence[str] = ["nsenter", "-t", str(self.pid), "-n", *command]
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=20)

    def python(self, program: str, *arguments: str) -> str:
        """What it printed, or why it ended."""
        done = self.run(sys.executable, "-c", program, *arguments)
        return (done.stdout or done.stderr).strip()


@pytest.fixture
def container() -> Iterator[Container]:
    with Playground(Setting()) as laptop:
        process = laptop.popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE)
        with process:
            while Path(f"/proc/{process.pid}/comm").read_text() != "cat\n":
                assert process.poll() is None
            made = laptop.run(["sh", "-c", BEHIND_A_BRIDGE, "sh", str(process.pid)])
            assert made.returncode == 0, made.stderr
            yield Container(laptop, process.pid)
            process.communicate()


@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
def test_a_container_reaches_what_the_policy_names_and_nothing_else(
    container: Container, tmp_path: Path, version: int
) -> None:
    server = atlas.EVIL_NAMESERVER.addresses[version == 6]
    allowed, evil = atlas.ALLOWED.addresses[version == 6], atlas.EVIL.addresses[version == 6]
    journal = tmp_path / "journal"
    assert container.python(PROGRAM, server, atlas.EVIL_ZONE, "443") == evil  # unguarded
    with up(container.laptop, tmp_path, "--journal", str(journal)):
        container.laptop.forget()
        assert container.python(PROGRAM, server, atlas.ALLOWED_NAME, "443") == allowed
        assert container.python(PROGRAM, server, atlas.ALLOWED_NAME, "80") == "ConnectionRefusedError"
        assert container.python(PROGRAM, server, atlas.EVIL_ZONE, "443") == "no such name"
        bare = f"import socket; socket.create_connection(({evil!r}, 443), 5)"
        assert "ConnectionRefusedError" in container.python(bare)
        assert not [arrival for arrival in container.laptop.arrivals() if atlas.EVIL_ZONE in str(arrival)]
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    flows = [record for record in records if record.get("subject", {}).get("kind") == "flow"]
    assert {flow["subject"]["src"] for flow in flows} == {("172.30.0.2", "fd30::2")[version == 6]}
    asked = [record for record in records if record.get("subject", {}).get("kind") == "query"]
    spoke = {record["owner"] and record["owner"]["exe"] for record in (*flows, *asked)}
    assert spoke == {str(Path(sys.executable).resolve())}
    assert flows
    assert asked


# Talks to an echo server, a word for each line on its standard input, and says what comes of it.
TALKER = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 7), 5)
print("connected", flush=True)
for line in sys.stdin:
    try:
        peer.sendall(line.encode())
        print(peer.recv(100).decode().strip() or "closed", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.mark.parametrize("address", atlas.ALLOWED.addresses)
def test_another_policy_ends_a_container_s_connection_too(container: Container, tmp_path: Path, address: str) -> None:
    policy = f"[{address}]:7\n" if ":" in address else f"{address}:7\n"
    talker = ["nsenter", "-t", str(container.pid), "-n", sys.executable, "-c", TALKER, address]
    with (
        up(container.laptop, tmp_path, policy=policy) as guard,
        subprocess.Popen(talker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        said, heard = process.stdin, process.stdout
        assert said is not None
        assert heard is not None
        assert guard.stderr is not None
        assert heard.readline() == "connected\n"
        for word, answer in (("one", "one"), ("two", "ConnectionResetError")):
            said.write(f"{word}\n")
            said.flush()
            assert heard.readline() == f"{answer}\n"
            (tmp_path / "policy").write_text("")
            if word == "one":
                guard.send_signal(signal.SIGHUP)
                while "live flow" not in (line := guard.stderr.readline()):
                    assert line, "it ended"
        said.close()
