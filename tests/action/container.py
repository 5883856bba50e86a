"""A container beside a stand-in runner's job.

Law: wires it up as container engines do, and starts what a test says in it; expects nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dnsfw.playground import atlas
from tests.action.standin import Job

# A bridge, and a network namespace behind it with a resolver of its own in mind.
_CONTAINER = """
set -e
bridge=$1 net=$2 pid=$3
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link add "$bridge" type bridge forward_delay 0; ip link set "$bridge" up; ip addr add "$net.1/24" dev "$bridge"
iptables-nft -t nat -A POSTROUTING -s "$net.0/24" ! -o "$bridge" -j MASQUERADE
ip link add "$bridge-c" master "$bridge" up type veth peer name eth0 netns "$pid"
nsenter -t "$pid" -n sh -ec "ip link set lo up; ip link set eth0 up; ip addr add $net.2/24 dev eth0
  ip route add default via $net.1"
until ip link show "$bridge" | grep -q 'state UP'; do sleep 0.02; done
"""


@contextmanager
def container(runner: Job, bridge: str, net: str) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    """A container on the runner's machine, as engines wire them up: what runs a shell script in it."""
    there = ["nsenter", "--target", str(runner.worker.pid), "--mount", "--net"]
    own = runner.folder / f"{bridge}.conf"  # engines give a container servers that it can send to
    own.write_text(f"nameserver {atlas.UPSTREAM.v4}\n")
    script = f"mount --bind {own} /etc/resolv.conf; exec cat"
    unshared = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", script]
    with subprocess.Popen([*there, *unshared], stdin=subprocess.PIPE) as process:
        while Path(f"/proc/{process.pid}/comm").read_text() != "cat\n":
            assert process.poll() is None
        made = runner.as_root("sh", "-c", _CONTAINER, "sh", bridge, net, str(process.pid))
        assert made.returncode == 0, made.stderr

        def run(script: str) -> subprocess.CompletedProcess[str]:
            inside = ["nsenter", "--target", str(process.pid), "--mount", "--net", "sh", "-ec", script]
            return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=20)

        yield run
        runner.as_root("ip", "link", "del", bridge)
        process.communicate()
