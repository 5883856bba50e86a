"""The BPF room's bed: a cgroup and a network namespace of its own, and the programs attached to that cgroup."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bpf.cgroup import CgroupPaths
from bpf.compile import Extent, Judged
from bpf.loader import start_loading
from bpf.owners import Owners, Sources
from bpf.procowners import ProcOwners, ProcSources
from bpf.sockdiag import SockDiag
from bpf.source import OwnerSource
from policy.values import Flow, Proto, address

RESOLVER_PORT = 5353  # where the bed's nft rules redirect port 53 to
# What a guard's table would hand to the queue: here, everything.
JUDGED = Judged(0x2000_0000, 0xFF00_0000, range(-154, -150))
_RULES = f"""
table inet bed {{
  chain judge {{
    type filter hook output priority {JUDGED.priorities[0] - 1}
    meta mark set {JUDGED.mark:#x}
  }}
  chain output {{
    type nat hook output priority -100
    udp dport 53 redirect to :{RESOLVER_PORT}
    tcp dport 53 redirect to :{RESOLVER_PORT}
  }}
}}
"""
# Every address below is local: packets to them need no second machine.
NETWORK = """
link set lo up
addr add 10.9.9.1/32 dev lo
route add local 198.51.100.0/24 dev lo src 10.9.9.1
addr add fd09::1/128 dev lo nodad
route add local 2001:db8::/64 dev lo src fd09::1
"""


def cgroup2_mount() -> Path:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return next(Path(mount[1]) for mount in mounts if mount[2] == "cgroup2")


@contextmanager
def own_cgroup(name: str) -> Iterator[Path]:
    cgroup = cgroup2_mount() / f"dnsfw-test-{os.getpid()}-{name}"
    cgroup.mkdir()
    try:
        yield cgroup
    finally:
        for pid in (cgroup / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        while "populated 1" in (cgroup / "cgroup.events").read_text():
            os.sched_yield()
        cgroup.rmdir()


def read_flow(line: str) -> Flow:
    """A flow from `PROTO SRC SPORT DST DPORT`."""
    proto, src, sport, dst, dport = line.split()
    return Flow(Proto(int(proto)), address(src), int(sport), address(dst), int(dport))


@dataclass
class Speaker:
    """A Python process in the bed's cgroup and namespace. It says what it sent as lines `PROTO SRC SPORT DST DPORT`,
    and waits for its standard input to end before it ends."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def flow(self) -> Flow:
        return read_flow(self.line())

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


@dataclass
class Resolver:
    """A listener on the port that queries are redirected to."""

    listener: socket.socket

    def client(self) -> tuple[str, int]:
        """Where the next query comes from."""
        if self.listener.type == socket.SOCK_DGRAM:
            host, port, *_ = self.listener.recvfrom(512)[1]
        else:
            connection, (host, port, *_) = self.listener.accept()
            connection.close()
        return host, port


@dataclass
class Bed:
    cgroup: Path
    netns: int
    sources: Sources
    owners: Owners
    older: Owners  # as on a kernel that shows no packets to BPF (before 6.4)
    searched: ProcOwners
    _speakers: ExitStack = field(default_factory=ExitStack)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread in the bed's network namespace."""
        with Path("/proc/thread-self/ns/net").open() as home:
            os.setns(self.netns, os.CLONE_NEWNET)
            try:
                yield
            finally:
                os.setns(home.fileno(), os.CLONE_NEWNET)

    def source(self, name: str) -> OwnerSource:
        """A way to find owners."""
        sources: dict[str, OwnerSource] = {"bpf": self.owners, "older bpf": self.older, "proc": self.searched}
        return sources[name]

    def speaker(self, script: str, *arguments: str) -> Speaker:
        """Run a script with the names of `PRELUDE` at hand. It ends with the test."""
        return self.start([sys.executable, "-I", "-S", "-c", PRELUDE + script, *arguments])

    def connect_bash(self, bash: list[str], act: str, *arguments: str) -> tuple[Flow, Speaker]:
        """Let a command that is a copy of bash do something and then connect to a listener of ours; the flow."""
        with self.inside():
            listener = socket.create_server(("10.9.9.1", 0))
        with listener:
            listener.settimeout(10)
            host, port = listener.getsockname()
            script = f"{act}; exec 3<>/dev/tcp/{host}/{port}; read -r"
            speaker = self.start([*bash, "-c", script, "bash", *arguments])
            connection, (client, sport) = listener.accept()
            connection.close()
        return Flow(Proto.TCP, address(client), sport, address(host), port), speaker

    @contextmanager
    def resolver(self, host: str, kind: int) -> Iterator[Resolver]:
        with self.inside():
            listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
        with listener:
            listener.settimeout(10)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, RESOLVER_PORT))
            if kind == socket.SOCK_STREAM:
                listener.listen()
            yield Resolver(listener)

    def start(self, command: list[str]) -> Speaker:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=self._enter,  # noqa: PLW1509 - one thread
        )
        speaker = Speaker(process)
        self._speakers.callback(speaker.end)
        return speaker

    def silence(self) -> None:
        self._speakers.close()

    def _enter(self) -> None:
        (self.cgroup / "cgroup.procs").write_text(str(os.getpid()))
        os.setns(self.netns, os.CLONE_NEWNET)


PRELUDE = """
import os, socket, sys
FAMILY = {"4": socket.AF_INET, "6": socket.AF_INET6, "mapped": socket.AF_INET6}
def udp(family): return socket.socket(FAMILY[family], socket.SOCK_DGRAM)
def tcp(family): return socket.socket(FAMILY[family], socket.SOCK_STREAM)
def say(proto, src, sport, dst, dport): print(proto, src, sport, dst, dport, flush=True)
def say_connected(sock, proto): say(proto, *sock.getsockname()[:2], *sock.getpeername()[:2])
def wait(): return sys.stdin.readline()
"""


@pytest.fixture(scope="session")
def shared_bed() -> Iterator[Bed]:
    with ExitStack() as stack:
        cgroup = stack.enter_context(own_cgroup("bed"))
        netns = stack.enter_context(network_namespace(NETWORK, _RULES))
        loading = start_loading(cgroup, Extent(judged=replace(JUDGED, network=netns)))
        older = stack.enter_context(start_loading(cgroup).finish(20))
        attached = stack.enter_context(loading.finish(20))
        for each in (attached, older):
            each.watch(RESOLVER_PORT)
        diag = stack.enter_context(_diag_in(netns))
        cgroups = stack.enter_context(CgroupPaths(cgroup2_mount()))
        mounts = Path("/proc/self/ns/mnt").stat().st_ino
        sources = Sources(attached, diag, cgroups, mount_namespace=mounts)
        searched = ProcSources(diag, cgroup, cgroups, frozenset({RESOLVER_PORT}), mount_namespace=mounts)
        yield Bed(
            cgroup, netns, sources, Owners(sources), Owners(replace(sources, attached=older)), ProcOwners(searched)
        )


@pytest.fixture
def bed(shared_bed: Bed) -> Iterator[Bed]:
    yield shared_bed
    shared_bed.silence()


@contextmanager
def network_namespace(links: str, rules: str = "") -> Iterator[int]:
    """A namespace without a name: it goes with its last descriptor."""
    with Path("/proc/thread-self/ns/net").open() as home:
        os.unshare(os.CLONE_NEWNET)
        try:
            subprocess.run(["ip", "-batch", "-"], input=links, text=True, check=True)
            subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
            netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.setns(home.fileno(), os.CLONE_NEWNET)
    try:
        yield netns
    finally:
        os.close(netns)


@contextmanager
def _diag_in(netns: int) -> Iterator[SockDiag]:
    with Path("/proc/thread-self/ns/net").open() as home:
        os.setns(netns, os.CLONE_NEWNET)
        try:
            diag = SockDiag()
        finally:
            os.setns(home.fileno(), os.CLONE_NEWNET)
    with diag:
        yield diag


@pytest.fixture
def sink(bed: Bed) -> Iterator[int]:
    """The port of a TCP listener and a UDP socket on every address of the bed, v4 and v6."""
    with bed.inside():
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagrams.bind(("::", listener.getsockname()[1]))
    with listener, datagrams:
        yield listener.getsockname()[1]
