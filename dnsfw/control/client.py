"""A command's end of the control socket, and the guards there are to ask.

Law: blocking, with a bound on everything. A guard that is not there, is not ours or does not answer is an error that
says which of these it is.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dnsfw.control import SOCKET, condition, framing
from dnsfw.control.framing import NotUnderstoodError
from dnsfw.control.messages import Answer, Question, Refused
from dnsfw.errors import DnsfwError, UsageError
from dnsfw.host.runs import STATE_ROOT
from dnsfw.machine.namespaces import network_namespace_id

_SOCKETS: Final = Path("/proc/net/unix")
_PATIENCE: Final = 40.0  # seconds; more than the guard gives itself


class ControlError(DnsfwError):
    """The guard gives no answer."""


class SilentError(ControlError):
    """The guard is there, and nobody answers for it."""


class RefusedError(ControlError):
    """The guard said no."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """A guard on this machine, alive or not, by the directory of its run. `name` is `up-…` for a host's."""

    directory: Path

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def is_host(self) -> bool:
        return self.name.startswith("up-")

    def ask(self, question: Question, token: str = "") -> Answer:
        """Raises RefusedError with the guard's own words, SilentError, or ControlError."""
        try:
            said = self._exchange(framing.ask(question, token))
        except PermissionError:
            raise ControlError(f"{self.name} is another user's.", "Ask as root: sudo dnsfw …") from None
        except (OSError, EOFError) as error:
            why = getattr(error, "strerror", None) or str(error) or "no answer"
            known = condition.read(self.directory)
            told = "What it guards is closed as long." if known is None else str(known)
            raise SilentError(f"{self.name} does not answer: {why}.", told) from None
        except NotUnderstoodError as error:
            raise ControlError(f"{self.name} is not understood: {error}.", "Is it of another version?") from None
        if isinstance(said, Refused):
            raise RefusedError(said.problem, said.remedy)
        return said

    def _exchange(self, asked: bytes) -> Answer:
        deadline = time.monotonic() + _PATIENCE
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(str(self.directory / SOCKET))
            sock.sendall(asked)
            size = framing.length(_receive(sock, framing.PREFIX, deadline), framing.LARGEST_ANSWER)
            return framing.read_answer(_receive(sock, size, deadline))


def _receive(sock: socket.socket, size: int, deadline: float) -> bytes:
    """Exactly that many octets. Raises EOFError, TimeoutError."""
    parts = bytearray()
    while len(parts) < size:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        part = sock.recv(size - len(parts))
        if not part:
            raise EOFError("it hung up")
        parts += part
    return bytes(parts)


def guards(root: Path = STATE_ROOT) -> list[Guarded]:
    """All that left a trace on this machine, hosts first. The directory may be gone when it is asked.

    Only root may list the runs; others see the sockets of guards that live (proc_net(5), unix).
    """
    try:
        found = {path for path in root.iterdir() if path.is_dir()}
    except FileNotFoundError:
        return []
    except PermissionError:
        sockets = (Path(line.split(" ")[-1]) for line in _SOCKETS.read_text(errors="replace").split("\n"))
        named = {path for path in sockets if path.name == SOCKET and path.parent.parent == root}
        found = {path.parent for path in named if _is_there(path)}
    return sorted(map(Guarded, found), key=lambda guard: (not guard.is_host, guard.name))


def _is_there(path: Path) -> bool:
    """Whoever binds a socket may call it anything, a line of that list among them."""
    try:
        return path.is_socket()
    except PermissionError:
        return True


def host_guard() -> str:
    """What the guard of the host that we are on is called, if there is one."""
    return f"up-{network_namespace_id()}"


def chosen(name: str, root: Path = STATE_ROOT) -> Guarded:
    """The guard that `name` begins the name of; with "" this host's, or the only one there is. Raises UsageError."""
    found = [guard for guard in guards(root) if guard.name.startswith(name)]
    if not name:
        found = [guard for guard in found if guard.name == host_guard()] or found
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"No guard{f' called {name}' if name else ''} is in force.", "Start one: dnsfw up, dnsfw run")
    raise UsageError(
        f"{len(found)} guards are in force.", f"Name one: {', '.join(guard.name for guard in found)} (or how it begins)"
    )
