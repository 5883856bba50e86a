"""`python -m bench.dns_cached`: the resolver's cached answers alone, without netfilter, owners or journal.

One run on loopback: dnsperf asks our listener, then dnsmasq and unbound where they are installed, the same questions;
prints queries a second and CPU time a query for each. The judge is a dict look-up, the bindings are the real ones.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dnslib

from policy.bindings import Bindings
from policy.decide import Decision
from policy.values import Action, Query, Reason
from resolver.core import ResolverConfig
from resolver.listeners import make_listeners
from resolver.server import Resolver
from resolver.upstreams import parse_upstream

_NAMES = [f"n{each}.example.com" for each in range(100)]
_PORTS = {"dnsfw": 15300, "dnsmasq": 15301, "unbound": 15302}
_UPSTREAM_PORT = 15303
_SECONDS = 5
_TARGET = 30_000  # queries a second
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure and print. Exit status 1 if our figure misses its target, 2 without dnsperf."""
    if shutil.which("dnsperf") is None:
        print("dns_cached: dnsperf (Debian package dnsperf) is not installed: nothing to ask with", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        questions = scratch / "questions"
        questions.write_text("".join(f"{name} A\n" for name in _NAMES), encoding="ascii")
        stack.enter_context(_child(_upstream, _UPSTREAM_PORT))
        rate = _measure(stack.enter_context(_child(_serve, _PORTS["dnsfw"])), "dnsfw", questions)
        for peer, command in (("dnsmasq", _dnsmasq()), ("unbound", _unbound(scratch))):
            if shutil.which(peer) is None:
                print(f"{peer:8} not installed: not compared")
                continue
            _measure(stack.enter_context(_started(command, _PORTS[peer])), peer, questions)
        return 0 if rate >= _TARGET else 1


def _measure(pid: int, name: str, questions: Path) -> float:
    """Queries a second, printed with the CPU time a query of process `pid`, after one round that fills its cache."""
    _dnsperf(_PORTS[name], questions, 1)
    before = _cpu_seconds(pid)
    completed, rate = _dnsperf(_PORTS[name], questions, _SECONDS)
    micros = (_cpu_seconds(pid) - before) / completed * 1e6
    print(f"{name:8} {rate:10,.0f} queries/s  {micros:6.1f} µs CPU a query")
    return rate


def _dnsperf(port: int, questions: Path, seconds: int) -> tuple[int, float]:
    """Questions answered, and how many a second. Raises RuntimeError if some went unanswered."""
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(questions), "-l", str(seconds), "-q", "100"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"completed:\s+(\d+) \(([\d.]+)%\).*per second:\s+([\d.]+)", said, re.DOTALL)
    if found is None or float(found[2]) < 99.9 or "NOERROR" not in said:
        raise RuntimeError(f"dnsperf was not answered: {said}")
    return int(found[1]), float(found[3])


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process so far: proc(5), /proc/PID/stat fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


@contextmanager
def _child(serve: Callable[[int], None], port: int) -> Iterator[int]:
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
def _started(command: list[str], port: int) -> Iterator[int]:
    """A peer's process id, once it answers on `port`."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield process.pid
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    question = dnslib.DNSRecord.question(_NAMES[0]).pack()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.1)
        client.connect(("127.0.0.1", port))
        for _ in range(100):
            try:
                client.send(question)
                client.recv(4096)
            except (TimeoutError, ConnectionRefusedError):
                time.sleep(0.05)
            else:
                return
    raise RuntimeError(f"nothing answers on port {port}")


def _upstream(port: int) -> None:
    """Answers each question with an address of its own, on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", port))
        while True:
            data, peer = server.recvfrom(4096)
            reply = dnslib.DNSRecord.parse(data).reply()
            number_of_name = int(reply.q.qname.label[0][1:])
            reply.add_answer(dnslib.RR(reply.q.qname, rdata=dnslib.A(f"192.0.2.{number_of_name}"), ttl=3600))
            server.sendto(reply.pack(), peer)


def _serve(port: int) -> None:
    allow, deny = (Decision(action, Reason.NO_RULE, None, None) for action in (Action.ALLOW, Action.DENY))
    decisions = dict.fromkeys(_NAMES, allow)
    bindings = Bindings()

    def judge(query: Query) -> Decision:
        return decisions.get(query.name, deny)

    async def serve() -> None:
        config = ResolverConfig((parse_upstream(f"127.0.0.1:{_UPSTREAM_PORT}"),))
        resolver = Resolver(config, judge, bindings.bind, time.monotonic, print)
        listeners = make_listeners(port)
        await resolver.serve(asyncio.get_running_loop(), listeners.udp, listeners.tcp)
        await asyncio.Event().wait()

    asyncio.run(serve())


def _dnsmasq() -> list[str]:
    options = "--keep-in-foreground --no-resolv --no-hosts --conf-file=/dev/null --user=root --bind-interfaces"
    where = f"--listen-address=127.0.0.1 --server=127.0.0.1#{_UPSTREAM_PORT} --cache-size=1000 --pid-file= --port"
    return ["dnsmasq", *options.split(), *where.split(), str(_PORTS["dnsmasq"])]


def _unbound(scratch: Path) -> list[str]:
    config = scratch / "unbound.conf"
    config.write_text(
        f"""server:
  interface: 127.0.0.1@{_PORTS["unbound"]}
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
  forward-addr: 127.0.0.1@{_UPSTREAM_PORT}
remote-control:
  control-enable: no
""",
        encoding="ascii",
    )
    return ["unbound", "-d", "-c", str(config)]


if __name__ == "__main__":
    sys.exit(main())
