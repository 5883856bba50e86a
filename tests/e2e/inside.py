"""A conversation with a program under `dnsfw run`, and the laptop around it.

Law: starts and asks; what is expected stands in the tests.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnslib import EDNS0, QTYPE, DNSHeader, DNSQuestion, DNSRecord

from dnsfw.playground.world import Playground

PYTHON = "/usr/bin/python3"  # the distribution's: any user may start it
_AGENT = Path(__file__).with_name("agent.py").read_text(encoding="utf-8")
_LOADER = "import sys; exec(compile(sys.stdin.read(int(sys.stdin.readline())), 'agent', 'exec'))"
AGENT = [PYTHON, "-c", _LOADER]

# A /run of its own, so that no other run's state is seen; private, so that nobody else sees it.
_PRIVATE = 'set -e; mount -t tmpfs none /run; mkdir /run/lock; {arrangements}\nexec "$@"'


def private(command: Sequence[str], arrangements: str = "") -> list[str]:
    """`command` with mounts of its own; `arrangements` are shell commands that run there before."""
    script = _PRIVATE.format(arrangements=arrangements)
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]


def as_sudo(uid: int, gid: int | None = None) -> list[str]:
    """What sudo(8) tells a program about its caller."""
    return ["env", f"SUDO_UID={uid}", f"SUDO_GID={uid if gid is None else gid}", "SUDO_USER=somebody", "HOME=/root"]


class Inside:
    """The agent under `dnsfw run`; `inside.tcp(…)` is its probe of that name. `pid` is the supervisor's."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self._unread = b""
        self._write(f"{len(_AGENT)}\n{_AGENT}".encode())
        self.ask("ready", (), {})

    def __getattr__(self, probe: str) -> Callable[..., Any]:
        if probe.startswith("_"):
            raise AttributeError(probe)
        return lambda *positional, **named: self.ask(probe, positional, named)

    def ask(self, probe: str, positional: Sequence[Any], named: Mapping[str, Any]) -> Any:
        self.tell(probe, positional, named)
        return self.hear()

    def tell(self, probe: str, positional: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Ask without waiting for the answer."""
        self._write(json.dumps([probe, list(positional), dict(named)]).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def hear(self, patience: float = 30.0) -> Any:
        assert self.process.stdout is not None
        deadline = time.monotonic() + patience
        while b"\n" not in self._unread:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 1 << 20) if readable else b""
            if not data:
                self.process.kill()
                raise AssertionError(f"the agent is gone: {self.process.communicate()[1].decode()}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    def leave(self) -> tuple[int, str]:
        """End the agent; dnsfw's exit status, and what was said on standard error."""
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors.decode()

    def children(self) -> list[int]:
        """The supervisor's children: the engine, the proxy's keeper where there is one, the command's PID 1."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(child) for child in children.split()]

    @property
    def engine(self) -> int:
        return self.children()[0]

    def outside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run in the guarded network namespace with every privilege that the guarded program lacks."""
        entered = ["nsenter", "-t", str(self.children()[-1]), "-n", *command]
        return subprocess.run(entered, capture_output=True, text=True, check=False, timeout=20)


@dataclass(frozen=True, slots=True)
class Laptop:
    """Guards started on the laptop of `world`; `directory` takes their files."""

    world: Playground
    directory: Path

    def command(self, policy: str, *options: str, command: Sequence[str] = AGENT) -> list[str]:
        """The command line of `dnsfw run` with the text `policy`."""
        file = self.directory / f"{abs(hash(policy)):x}.policy"
        file.write_text(policy, encoding="utf-8")
        return self.world.dnsfw("run", "--policy", str(file), *options, "--", *command)

    @contextmanager
    def agent(
        self, policy: str, *options: str, prefix: Sequence[str] = (), mounts: str | None = None
    ) -> Iterator[Inside]:
        """The agent under a guard; `mounts` gives it a private /run and arranges more."""
        command = [*prefix, *self.command(policy, *options)]
        if mounts is not None:
            command = private(command, mounts)
        with self._started(command) as process:
            yield Inside(process)

    @contextmanager
    def agents(self, policy: str, *options: Sequence[str]) -> Iterator[list[Inside]]:
        """One for each of `options`, started at the same time."""
        with ExitStack() as stack:
            started = [stack.enter_context(self._started(self.command(policy, *each))) for each in options]
            yield [Inside(process) for process in started]

    def _started(self, command: Sequence[str]) -> AbstractContextManager[subprocess.Popen[bytes]]:
        streams = subprocess.PIPE
        return ended(self.world.popen(command, stdin=streams, stdout=streams, stderr=streams))

    def run(self, policy: str, command: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
        """Guard `command` to its end."""
        return self.world.run(self.command(policy, *options, command=command))


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that doesn't outlive a test that failed."""
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Close its input and wait; then more plainly."""
    for stop in (lambda: None, process.terminate, process.kill):
        stop()  # type: ignore[no-untyped-call]  # dnslib has no types
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            continue
        except ValueError:  # its streams are closed by the test itself
            process.wait(10)
        return


def question(name: str, qtype: str = "A") -> str:
    """A question with EDNS in hexadecimal, for the probe `dns`."""
    asked = DNSRecord(DNSHeader(rd=1), q=DNSQuestion(name, getattr(QTYPE, qtype)), ar=[EDNS0(udp_len=1232)])
    return bytes(asked.pack()).hex()


def extended_errors(answer: DNSRecord) -> list[int]:
    """The EDE codes in an answer (RFC 8914 section 2)."""
    options = [option for record in answer.ar if record.rtype == 41 for option in record.rdata]
    return [int.from_bytes(option.data[:2]) for option in options if option.code == 15]
