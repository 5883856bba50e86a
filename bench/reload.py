"""A change of policy under many live connections: how soon the last one that is no longer allowed is cut.

Law: `dnsfw up` on the playground's laptop, real connections, and the clock of whoever holds them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from bench.bed import Bed, BenchError
from bench.daemon import guarded
from bench.figure import Figure, at_most, number
from dnsfw.playground import atlas
from firewall.conntrack import Conntrack

_FLOWS = (30_000, 65_536)
_PORTS = (20_001, 20_002, 20_003, 20_004)  # a server and a client for each: a process may have 20,000 files open
_ALLOWING = f"{atlas.ALLOWED.v4}:{'|'.join(map(str, _PORTS))}\n"
# Takes connections and leaves them alone.
_SERVER = """
import socket, sys
ear, kept = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=4096), []
print("ready", flush=True)
while True:
    kept.append(ear.accept())
"""
# Opens connections, says so, and when the last one has been cut.
_CLIENT = """
import select, socket, sys, time
live, cut = {}, select.epoll()
for _ in range(int(sys.argv[3])):
    sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
    live[sock.fileno()] = sock
    cut.register(sock, 0)
print("ready", flush=True)
while live:
    for descriptor, _ in cut.poll():
        cut.unregister(descriptor)
        live.pop(descriptor).detach()
print(time.monotonic(), flush=True)
"""
_FILES = """
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
setrlimit(RLIMIT_NOFILE, (getrlimit(RLIMIT_NOFILE)[1],) * 2)
"""


def measure(bed: Bed) -> Iterator[Figure]:
    for flows in _FLOWS:
        servers = [bed.world.on_internet(_script(_SERVER, port)) for port in _PORTS]
        clients = [bed.world.on_laptop(_script(_CLIENT, port, flows // len(_PORTS))) for port in _PORTS]
        bed.policy.write_text(_ALLOWING, encoding="utf-8")
        bed.policy.chmod(0o666)  # so that nothing but `dnsfw reload` has it read again
        with _running(servers), guarded(bed), _running(clients) as say:
            yield _cut(bed, flows, say)


def _cut(bed: Bed, flows: int, say: list[IO[str]]) -> Figure:
    kept = _reload(bed, _ALLOWING + atlas.ALLOWED_NAME)
    began = time.monotonic()
    answered = _reload(bed, atlas.ALLOWED_NAME)
    last = max(float(each.readline()) for each in say) - began
    with bed.world.laptop.entered(), Conntrack() as conntrack:
        left = sum(each.dport in _PORTS for each in conntrack.connections())
    if left:
        raise BenchError(f"{left} connections are still known")
    against = f"the answer after {number(answered)} s; where all of them go on, after {number(kept)} s"
    return Figure(f"reload: the last of {flows:,} flows is cut", last, "s", at_most(1.0), against)


def _reload(bed: Bed, policy: str) -> float:
    """Seconds until the guard has answered."""
    bed.policy.write_text(policy, encoding="utf-8")
    began = time.monotonic()
    done = bed.world.run(bed.world.dnsfw("reload"))
    if done.returncode != 0:
        raise BenchError(f"dnsfw reload ended with {done.returncode}: {done.stderr}")
    return time.monotonic() - began


def _script(text: str, port: int, *more: int) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", _FILES + text, atlas.ALLOWED.v4, str(port), *map(str, more)]


@contextmanager
def _running(commands: list[list[str]]) -> Iterator[list[IO[str]]]:
    """What they say after all of them were ready. Raises BenchError."""
    with ExitStack() as stack:
        say = [stack.enter_context(_spoken(command)) for command in commands]
        if any(each.readline() != "ready\n" for each in say):
            raise BenchError("not all connections could be made")
        yield say


@contextmanager
def _spoken(command: list[str]) -> Iterator[IO[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise BenchError("Popen made no pipe")
            yield process.stdout
        finally:
            process.kill()
