"""A laptop with a container behind a bridge: a network namespace, and what programs do in it.

Law: no guard is started here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dnsfw.playground.world import Playground, Setting

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
# Asks a name server of its own for an address, and again where nobody answers, as a container's libc would; then says
# what a connection comes to.
PROGRAM = """
import socket, struct, sys
server, name, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in server else socket.AF_INET
kind = 28 if ":" in server else 1
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
with socket.socket(family, socket.SOCK_DGRAM) as asking:
    asking.settimeout(0.5)
    asking.connect((server, 53))
    for attempt in range(10):
        asking.send(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1))
        try:
            answer = asking.recv(4096)
            break
        except TimeoutError:
            continue
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


@contextmanager
def container_on_a_laptop() -> Iterator[Container]:
    with Playground(Setting()) as laptop:
        process = laptop.popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE)
        with process:
            while Path(f"/proc/{process.pid}/comm").read_text() != "cat\n":
                assert process.poll() is None
            made = laptop.run(["sh", "-c", BEHIND_A_BRIDGE, "sh", str(process.pid)])
            assert made.returncode == 0, made.stderr
            yield Container(laptop, process.pid)
            process.communicate()
