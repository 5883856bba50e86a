"""Two network namespaces: clients inside, and outside the proxy and real servers.

Law: real kernel objects, real TLS, no guard: what goes to a web port inside is redirected to the proxy as by `steer`,
and the gate is the real one, in a thread. Everything ends with the bed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dnsfw.engine.gate import Gate
from dnsfw.engine.requests import answer
from dnsfw.journal.records import Entry
from dnsfw.machine.namespaces import NetworkNamespace
from dnsfw.playground.certificates import Certificates, make_certificates
from policy import Action, Bindings, Owner, address
from policy.parse import parse

OWNER = Owner(pid=7, start_time=70, uid=1000, exe="/usr/bin/git", argv=("git",), cgroup="/job")
NGINX = {4: "198.51.100.80", 6: "2001:db8::80"}
PYTHON = {4: "198.51.100.81", 6: "2001:db8::81"}
OLD = {4: "198.51.100.82", 6: "2001:db8::82"}  # nginx again, with no TLS from this decade
MUTUAL = {4: "198.51.100.83", 6: "2001:db8::83"}  # Python, hanging up on clients without a certificate
PATIENCE = 10.0
PROGRAMS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # Node is in the environment
_PORT = 8090  # the proxy's
_INSIDE = """
addr add 10.0.0.2/32 dev lo
addr add fd00::2/128 dev lo nodad
route add default dev lo src 10.0.0.2
route add default dev lo src fd00::2
"""
_STEER = f"""
table inet steer {{
  chain output {{
    type nat hook output priority -100
    tcp dport {{ 80, 443 }} redirect to :{_PORT}
  }}
}}
"""


@dataclass(slots=True)
class Bed:
    """`hosts` are names and the addresses they are bound to. `entries` is what the gate recorded."""

    inside: NetworkNamespace
    outside: NetworkNamespace
    directory: Path
    hosts: dict[str, dict[int, str]]
    entries: list[Entry] = field(default_factory=list)
    proxy: subprocess.Popen[str] | None = None

    @property
    def root(self) -> Path:
        """The proxy's authority: what programs would find in their bundles."""
        return self.directory / "root.pem"

    def resolve(self, version: int = 4) -> list[str]:
        """curl's words for the names, which nobody resolves here."""
        pairs = [(name, at[version]) for name, at in self.hosts.items()]
        return [word for name, at in pairs for port in (80, 443) for word in ("--resolve", f"{name}:{port}:{at}")]

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        """A client, inside, to its end."""
        with self.inside.entered():
            started = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": PROGRAMS, "HOME": str(self.directory), "LC_ALL": "C.UTF-8", **variables},
            )
        output, complaints = started.communicate(timeout=30)
        return subprocess.CompletedProcess(command, started.returncode, output, complaints)

    def curl(self, *words: str, version: int = 4) -> subprocess.CompletedProcess[bytes]:
        """curl, quiet but for errors."""
        trust = ("--cacert", str(self.root), "--max-time", "20")
        return self.run("curl", "-sS", *trust, *self.resolve(version), *words)

    def status(self, *words: str, version: int = 4) -> str:
        """The status of curl's request, 000 for none."""
        return self.curl("-o", "/dev/null", "-w", "%{http_code}", *words, version=version).stdout.decode()

    def connect(self, at: dict[int, str], port: int, version: int = 4) -> socket.socket:
        """A socket inside, connected by way of the proxy."""
        with self.inside.entered():
            made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        made.settimeout(PATIENCE)
        made.connect((at[version], port))
        return made

    def wait_for_denial(self, since: int) -> Entry:
        """The first denial among the entries from the `since`-th on; it may come a moment after the client's answer."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for entry in self.entries[since:]:
                if entry.decision.action is Action.DENY:
                    return entry
            time.sleep(0.005)
        raise AssertionError(f"no denial among {self.entries[since:]}")


@contextmanager
def built(
    directory: Path, policy: str, hosts: dict[str, dict[int, str]], inspected: Sequence[str], patience: int = 30
) -> Iterator[Bed]:
    """A bed with a proxy in it. `inspected` are the hosts of the URL rules, `patience` the proxy's in seconds."""
    with ExitStack() as stack:
        inside, outside = (stack.enter_context(NetworkNamespace()) for _ in range(2))
        with inside.entered():
            _ip(_INSIDE)
            subprocess.run(["nft", "-f", "-"], input=_STEER, text=True, check=True)
        with outside.entered():
            at = [ip for ips in (NGINX, PYTHON, OLD, MUTUAL) for ip in ips.values()]
            _ip("".join(f"addr add {ip} dev lo {'nodad' if ':' in ip else ''}\n" for ip in at))
        bed = Bed(inside, outside, directory, hosts)
        ours, theirs = socket.socketpair()
        stack.enter_context(_gate(stack.enter_context(ours), policy, bed))
        stack.enter_context(_proxy(theirs, [",".join(inspected), str(patience)], bed))
        yield bed


def certificates(directory: Path, hosts: dict[str, dict[int, str]]) -> Certificates:
    """The servers' own, from an authority that the proxy trusts."""
    return make_certificates(directory, [f"DNS:{name}" for name in hosts])


@contextmanager
def _gate(end: socket.socket, policy: str, bed: Bed) -> Iterator[None]:
    bindings = Bindings()
    for name, at in bed.hosts.items():
        bindings.bind(name, [(address(ip), 1e9) for ip in at.values()], 0.0)
    gate = Gate(parse(policy, "p"), bindings, lambda _: OWNER, bed.entries.append, lambda: 1.0)

    async def serve() -> None:
        reader, writer = await asyncio.open_unix_connection(sock=end)
        await answer(gate, reader, writer)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="gate", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


@contextmanager
def _proxy(gate: socket.socket, more: Sequence[str], bed: Bed) -> Iterator[None]:
    with ExitStack() as stack:
        with bed.inside.entered():
            listeners = [
                stack.enter_context(socket.create_server((host, _PORT), family=family))
                for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
            ]
        handed = [gate.fileno(), *(listener.fileno() for listener in listeners)]
        words = [str(gate.fileno()), str(bed.directory / "ca.pem"), *more]
        with bed.outside.entered():
            bed.proxy = subprocess.Popen(
                [sys.executable, "-m", "tests.proxy.process", *words, *map(str, handed[1:])],
                pass_fds=handed,
                stdout=subprocess.PIPE,
                text=True,
            )
        gate.close()
    lines = list(iter(bed.proxy.stdout.readline, "ready\n")) if bed.proxy.stdout else []
    bed.root.write_text("".join(lines))
    try:
        yield
    finally:
        bed.proxy.terminate()
        bed.proxy.wait(PATIENCE)
        if bed.proxy.stdout:
            bed.proxy.stdout.close()


def _ip(batch: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True, capture_output=True)
