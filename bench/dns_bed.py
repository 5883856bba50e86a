"""A resolver, its peers and their upstream on loopback, in processes of their own: what the DNS figures are taken on.

Law: starts, asks and measures processes; what is asked and what is expected stands in the figures' own modules. No
netfilter, owners or journal here: the judge allows `*.example.com`, the bindings are the real ones.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dnsfw.engine.gate import Gate
from dnsfw.journal.writer import Journal
from dnsfw.machine.interpreter import answer_promptly
from dnsfw.machine.privilege import ROOT
from policy import Bindings, Budgets, Limits
from policy.parse import parse
from resolver.core import ResolverConfig
from resolver.listeners import make_listeners
from resolver.server import Resolver
from resolver.upstreams import parse_upstream

DNSFW, DNSMASQ, UNBOUND, UPSTREAM, BARE = 15300, 15301, 15302, 15303, 15304  # ports
ZONE = "example.com"
IN_ZONE = b"\7example\3com\0\0\1\0\1"  # the rest of a question for an address of a name in it
_UNLIMITED = Limits(*[1 << 40] * 4)  # of names under the one wildcard
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_QUESTION = bytes.fromhex("000001000001000000000000") + b"\2n0" + IN_ZONE
_ANSWER = bytes.fromhex("c00c 0001 0001 00000e10 0004")  # the question's name, A, IN, an hour, four octets


@dataclass(frozen=True, slots=True)
class Load:
    """What dnsperf saw: questions answered and lost, how many answered a second."""

    answered: int
    lost: int
    rate: float


def dnsperf(port: int, questions: Path, *options: str) -> Load:
    """Raises RuntimeError if some questions went unanswered."""
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(questions), *options]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pattern = r"completed:\s+(\d+) \(([\d.]+)%\).*lost:\s+(\d+).*per second:\s+([\d.]+)"
    found = re.search(pattern, said, re.DOTALL)
    if found is None or float(found[2]) < 99.9 or "NOERROR" not in said:
        raise RuntimeError(f"dnsperf was not answered: {said}")
    return Load(int(found[1]), int(found[3]), float(found[4]))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far: proc(5), /proc/PID/stat fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


@contextmanager
def child(serve: Callable[[int], None], port: int) -> Iterator[int]:
    """`serve` in a process of its own, once it answers on `port`."""
    pid = os.fork()
    if pid == 0:
        try:
            serve(port)
        finally:
            os._exit(1)
    try:
        _wait_for(port)
        yield pid
    finally:
        os.kill(pid, 15)
        os.waitpid(pid, 0)


@contextmanager
def started(command: list[str], port: int) -> Iterator[int]:
    """A peer's process id, once it answers on `port`."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield process.pid
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.1)
        client.connect(("127.0.0.1", port))
        for _ in range(100):
            try:
                client.send(_QUESTION)
                client.recv(4096)
            except (TimeoutError, ConnectionRefusedError):
                time.sleep(0.05)
            else:
                return
    raise RuntimeError(f"nothing answers on port {port}")


def serve_upstream(port: int) -> None:
    """Answers each question with an address made from its name, and does nothing else: it must not be what is slow."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        server.bind(("127.0.0.1", port))
        while True:
            data, peer = server.recvfrom(4096)
            end = data.index(0, 12) + 5
            head = data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
            number = hash(data[12:end].lower()) & 0xFFFF
            server.sendto(head + data[12:end] + _ANSWER + b"\xcb\0" + number.to_bytes(2), peer)


def serve_bare(port: int) -> None:
    """The least that forwarding takes in Python: a socket of its own for each question, ids patched, nothing checked
    but id and question, nothing kept. What is faster gives up on fresh sockets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, select.epoll() as ready:
        server.bind(("127.0.0.1", port))
        ready.register(server, select.EPOLLIN)
        asked: dict[int, tuple[socket.socket, bytes, tuple[str, int]]] = {}
        while True:
            for fd, _ in ready.poll():
                if fd == server.fileno():
                    data, peer = server.recvfrom(4096)
                    upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    upstream.connect(("127.0.0.1", UPSTREAM))
                    upstream.send(os.urandom(2) + data[2:])
                    ready.register(upstream, select.EPOLLIN)
                    asked[upstream.fileno()] = upstream, data, peer
                else:
                    upstream, data, peer = asked.pop(fd)
                    answer = upstream.recv(4096)
                    upstream.close()
                    if answer[12 : len(data)] == data[12:]:
                        server.sendto(data[:2] + answer[2:], peer)


def serve_dnsfw(port: int) -> None:
    """Policy, budgets, bindings and journal are the real ones; only owners are not looked up."""
    answer_promptly()
    with tempfile.TemporaryDirectory() as scratch:
        journal = Journal(Path(scratch) / "journal", "enforce", ROOT)
        journal.start()
        policy = parse(f"*.{ZONE}\n", "bench")
        gate = Gate(policy, Bindings(), lambda _: None, journal.record, time.monotonic, budgets=Budgets(_UNLIMITED))

        async def serve() -> None:
            config = ResolverConfig((parse_upstream(f"127.0.0.1:{UPSTREAM}"),))
            resolver = Resolver(config, gate, gate.bindings.bind, time.monotonic, gate.fault)
            listeners = make_listeners(port)
            await resolver.serve(asyncio.get_running_loop(), listeners.udp, listeners.tcp)
            await asyncio.Event().wait()

        asyncio.run(serve())


def dnsmasq(cache_size: int) -> list[str]:
    options = "--keep-in-foreground --no-resolv --no-hosts --conf-file=/dev/null --user=root --bind-interfaces"
    options += f" --listen-address=127.0.0.1 --server=127.0.0.1#{UPSTREAM} --pid-file= --dns-forward-max=1000"
    return ["dnsmasq", *options.split(), f"--cache-size={cache_size}", f"--port={DNSMASQ}"]


def unbound(scratch: Path) -> list[str]:
    config = scratch / "unbound.conf"
    config.write_text(
        f"""server:
  interface: 127.0.0.1@{UNBOUND}
  num-threads: 1
  do-daemonize: no
  do-not-query-localhost: no
  use-syslog: no
  username: ""
  chroot: ""
  pidfile: ""
  directory: "{scratch}"
  module-config: "iterator"
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{UPSTREAM}
remote-control:
  control-enable: no
""",
        encoding="ascii",
    )
    return ["unbound", "-d", "-c", str(config)]
