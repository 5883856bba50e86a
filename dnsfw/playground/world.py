"""The playground itself: two network namespaces, a wire, and the processes in them.

Law: builds and tears down; who lives where is the `atlas`, what runs is `internet` and `laptop`. The namespaces have
no names: they are held by this process and its children, so SIGKILL leaves nothing behind.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from dnsfw.machine.namespaces import NetworkNamespace
from dnsfw.playground import atlas
from dnsfw.playground.arrival import Arrival
from dnsfw.playground.certificates import make_site_certificates
from dnsfw.playground.control import PACKAGE_ROOT, Child, PlaygroundError
from dnsfw.playground.laptop import SYSTEM_ROOTS
from dnsfw.playground.wire import wire_up

__all__ = ["Playground", "PlaygroundError", "Setting"]

_READY_WITHIN = 10.0  # seconds for a child to start, on a busy machine


@dataclass(frozen=True, slots=True)
class Setting:
    """How the laptop and the wire are set up.

    With `stub_resolver` the laptop's resolv.conf names a forwarder on its own loopback, otherwise the upstream itself.
    Without `default_route` the laptop has routes to the internet's networks only. Without `tap` the frames on the wire
    are not recorded, only what servers are told: for benchmarks, which would measure the tap.
    """

    stub_resolver: bool = False
    default_route: bool = True
    tap: bool = True


class Playground:
    """`with Playground() as world: world.run(["curl", …])`: the command runs on the laptop. Needs root.

    Raises PlaygroundError or SetupError when it cannot be built; then nothing of it is left.
    """

    def __init__(self, setting: Setting = Setting()) -> None:
        self._setting = setting
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            directory = tempfile.TemporaryDirectory(prefix="dnsfw-playground-", ignore_cleanup_errors=True)
            self.directory = Path(stack.enter_context(directory))
            self._furnish()
            self._internet_net = stack.enter_context(NetworkNamespace())
            self.laptop = stack.enter_context(NetworkNamespace())
            wire_up(self._internet_net, self.laptop, default_route=self._setting.default_route)
            self._internet = stack.enter_context(self._child("internet", self._internet_net, tap=self._setting.tap))
            self._laptop = stack.enter_context(self._child("laptop", self.laptop, stub=self._setting.stub_resolver))
            for child in (self._internet, self._laptop):
                child.hear(within=_READY_WITHIN)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def authority(self) -> Path:
        """The certificate authority that the internet's sites are to be verified against (PEM)."""
        return self.directory / "ca.pem"

    def on_laptop(self, command: Sequence[str], cwd: str | None = None) -> list[str]:
        """The same command, to be started from anywhere by root, running on the laptop."""
        pid = str(self._laptop.pid)
        return ["nsenter", "-t", pid, "-n", "-m", "env", "-C", cwd or str(Path.cwd()), *command]

    def on_internet(self, command: Sequence[str]) -> list[str]:
        """The same command, to be started from anywhere by root, in the internet's network namespace."""
        return ["nsenter", "-t", str(self._internet.pid), "-n", *command]

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """subprocess.Popen on the laptop; its pid is the command's own."""
        return subprocess.Popen(self.on_laptop(command, options.pop("cwd", None)), **options)

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end on the laptop. Raises subprocess.TimeoutExpired."""
        process = self.popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                out, err = process.communicate(stdin, timeout)
            except subprocess.TimeoutExpired:
                _stop(process)
                raise
        return subprocess.CompletedProcess(list(command), process.returncode, out, err)

    def run_on_terminal(self, command: Sequence[str], timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run to the end on the laptop, on a terminal of its own; what appeared there is `stdout`."""
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            session = ["setsid", "--ctty", "--wait", *command]
            process = self.popen(session, stdin=theirs, stdout=theirs, stderr=theirs)
            os.close(theirs)
            shown = _read_terminal(terminal, time.monotonic() + timeout)
            returncode = process.wait(timeout)
        return subprocess.CompletedProcess(list(command), returncode, shown.decode(errors="replace"), "")

    def dnsfw(self, *arguments: str) -> list[str]:
        """The command `dnsfw arguments…` with this very package, wherever it is started."""
        return own_command(*arguments)

    def arrivals(self, token: str | None = None, *, within: float = 0.0) -> list[Arrival]:
        """What arrived on the internet's side (carrying `token`), waiting up to `within` seconds for the first.

        Raises PlaygroundError if the tap or the book missed anything: then nobody can say what did not arrive.
        """
        return ask_arrivals(self._internet, token, within)

    def forget(self) -> None:
        """Empty the book."""
        self._internet.ask({"ask": "forget"}, within=_READY_WITHIN)

    def _child(self, module: str, namespace: NetworkNamespace, **switches: bool) -> Child:
        chosen = [f"--{name}" for name, on in switches.items() if on]
        arguments = [str(namespace.fd), str(self.directory), *chosen]
        return Child(f"dnsfw.playground.{module}", arguments, keep=[namespace.fd])

    def _furnish(self) -> None:
        """The files that the playground's programs read."""
        self.directory.chmod(0o755)  # the malicious package is nobody, and reads the authority's certificate
        make_site_certificates(self.directory)
        if SYSTEM_ROOTS.exists():
            (self.directory / SYSTEM_ROOTS.name).write_bytes(SYSTEM_ROOTS.read_bytes() + self.authority.read_bytes())
        resolver = atlas.STUB_RESOLVER if self._setting.stub_resolver else atlas.UPSTREAM.v4
        (self.directory / "resolv.conf").write_text(f"nameserver {resolver}\n", encoding="ascii")
        (self.directory / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n", encoding="ascii")
        (self.directory / "nsswitch.conf").write_text("hosts: files dns\n", encoding="ascii")


def own_command(*arguments: str) -> list[str]:
    """See `Playground.dnsfw`."""
    start = f"import sys; sys.path.insert(0, {str(PACKAGE_ROOT)!r}); from dnsfw.cli import main; main()"
    return [sys.executable, "-c", start, *arguments]


def ask_arrivals(internet: Child, token: str | None, within: float) -> list[Arrival]:
    """See `Playground.arrivals`."""
    reply = internet.ask({"ask": "arrivals", "token": token, "within": within}, within=within + _READY_WITHIN)
    if reply["missed"]:
        raise PlaygroundError(f"the internet's side missed {reply['missed']} arrivals; it can't judge")
    return [Arrival.from_json(raw) for raw in reply["arrivals"]]


def _stop(process: subprocess.Popen[Any]) -> None:
    """SIGTERM first: a guard puts things back before it goes."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()


def _read_terminal(terminal: IO[bytes], deadline: float) -> bytes:
    """All that appears until the last program has closed the other end, which Linux reports as EIO."""
    shown = b""
    while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            shown += terminal.read(1 << 16)
        except OSError:
            break
    return shown
