"""A guard in force: an engine, the table that depends on it, and the conversation between them.

Law: what `run` and `up` have in common, seen from the supervisor. Closed is the state that everything falls back to:
the table is applied before the engine answers and stays when the engine is gone.
"""

from __future__ import annotations

import os
import select
import signal
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bpf.loader import start_loading
from bpf.sockdiag import SockDiag
from dnsfw.channel import Channel, Failed, Finish, Finished, Listening, Message, Ready, channel_pair
from dnsfw.errors import EXIT_SETUP, DnsfwError, SetupError
from dnsfw.namespaces import NetworkNamespace
from dnsfw.privilege import User
from dnsfw.terminal import complain
from firewall.frames import Frames
from firewall.nft import NftError
from firewall.ruleset import Plan
from firewall.table import Table
from resolver.upstreams import Upstream

# Of systemd's range for dynamic users, so no account of the machine's own (systemd.io/UIDS-GIDS).
ENGINE_USER = User(61_853, 61_853, (), "dnsfw", "/", "/usr/sbin/nologin")
QUEUE = 53  # an nfqueue number; each network namespace has 65,536 of its own
_ENGINE_STARTS_WITHIN = 30.0
_ENGINE_ENDS_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """What the command line says of a guard; all of it checked later, by whom it concerns."""

    policy: Path | None
    audit: bool
    upstreams: tuple[Upstream, ...]
    journal: Path | None
    refused: bool
    quiet: bool
    repo: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What is guarded: a network namespace of ours, or None for the host's; the cgroup whose sockets are attributed;
    the user who asked, and that user's environment; the run's directory; when it began, in seconds since the epoch."""

    network: NetworkNamespace | None
    cgroup: Path
    user: User
    environ: Mapping[str, str]
    directory: Path
    began: float


class Guard:
    """The supervisor's hold on the engine. `pid` is the engine's."""

    def __init__(self, pid: int, channel: Channel, place: Place, stack: ExitStack, *, audit: bool) -> None:
        self.pid = pid
        self._channel = channel
        self._place = place
        self._stack = stack
        self._audit = audit

    def enforce(self) -> None:
        """Put the table in force once the engine's sockets are there; return when it answers.

        Raises DnsfwError, with the engine's reason where it gave one.
        """
        listening = self._started(Listening)
        try:
            with nullcontext() if self._place.network is None else self._place.network.entered():
                self._stack.enter_context(Table(self._plan(listening)))
        except NftError as error:
            raise SetupError(f"The packet filter can't be put in force: {error}") from error
        if self._place.network is None and not self._audit:
            self._stop_frames()
        self._started(Ready)

    def _stop_frames(self) -> None:
        """In a namespace of ours no process may send any; on a host, whoever has CAP_NET_RAW."""
        try:
            self._stack.enter_context(Frames())
        except NftError:
            complain(
                "this kernel (before Linux 5.16) can't stop frames that programs with CAP_NET_RAW make themselves."
            )

    def _started[M: Message](self, stage: type[M]) -> M:
        said = self._expect(_ENGINE_STARTS_WITHIN)
        if isinstance(said, Failed):
            raise EngineError(said)
        if not isinstance(said, stage):
            raise SetupError("The engine died while starting.", "This is a fault of dnsfw's; please report it.")
        return said

    def _plan(self, listening: Listening) -> Plan:
        """A namespace of our own has nothing in it yet. A host has: its servers and what was connected go on."""
        if self._place.network is not None:
            return Plan(listening.resolver_port, listening.queue, audit=self._audit, inbound="closed")
        with SockDiag() as diag:
            standing = tuple(diag.established())
        return Plan(
            listening.resolver_port,
            listening.queue,
            audit=self._audit,
            inbound="open",
            exempt_uids=(ENGINE_USER.uid,),
            standing=standing,
        )

    def finish(self) -> Finished | None:
        """Have the engine write everything down, and show its summary. None if it is gone already."""
        try:
            self._channel.send(Finish())
            answer = self._expect(_ENGINE_ENDS_WITHIN)
        except OSError:
            return None
        return answer if isinstance(answer, Finished) else None

    def _expect(self, patience: float) -> Message | None:
        try:
            return self._channel.receive(patience)
        except TimeoutError:
            return None


class EngineError(DnsfwError):
    """The engine said why it can't start."""

    def __init__(self, said: Failed) -> None:
        super().__init__(said.problem, said.remedy)
        self.exit_status = said.exit_status


@contextmanager
def guarding(options: GuardOptions, place: Place) -> Iterator[Guard]:
    """Start an engine; at exit, the table is removed and the engine ended."""
    ours, theirs = channel_pair()
    pid = os.fork()
    if pid == 0:
        _in_child(options, place, theirs)
    theirs.close()
    try:
        with ExitStack() as stack:
            yield Guard(pid, ours, place, stack, audit=options.audit)
    finally:
        ours.close()  # the engine takes this as the end
        _reap(pid, _ENGINE_ENDS_WITHIN)


def _in_child(options: GuardOptions, place: Place, channel: Channel) -> NoReturn:
    """Away from the terminal and from what the supervisor holds; never returns."""
    status = EXIT_SETUP
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _keep_open({2, channel.fileno(), *(() if place.network is None else (place.network.fd,))})
        loading = start_loading(place.cgroup)
        # Imported by the engine alone, and while the compiler works: the supervisor stays small, the start short.
        from dnsfw.engine import EngineConfig, run  # noqa: PLC0415

        status = run(EngineConfig(options, place, ENGINE_USER), loading, channel)
    except ConnectionError:
        pass  # the supervisor has hung up: nobody is left to tell
    except BaseException:  # noqa: BLE001 - the child's last frame; what it prints is all that is known
        traceback.print_exc()
    finally:
        os._exit(status)


def _keep_open(wanted: set[int]) -> None:
    """Close every other descriptor; standard input and output become /dev/null."""
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor not in wanted:
            with suppress(OSError):  # the listing's own
                os.close(descriptor)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in {0, 1} - {null}:
        os.dup2(null, standard)


def _reap(pid: int, patience: float) -> None:
    """Wait for a child of ours, at most `patience` seconds, then kill it. Reaped already: fine."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([handle], [], [], patience)[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    finally:
        os.close(handle)
