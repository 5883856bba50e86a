"""A process of ours, apart from the supervisor that forked it.

Law: everything between fork(2) and the child's own work: its session, its signals, the descriptors that it may keep;
and afterwards, how it ended. What the work is stands elsewhere.
"""

from __future__ import annotations

import os
import select
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from dnsfw.errors import EXIT_SETUP

type Work = Callable[[], int]

WELL = "exit status 0"  # how a child ends that did what it was forked for


class Child:
    """A child that nobody else waits for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._how: str | None = None  # once it was waited for, the number may be another process's

    def ended(self) -> str | None:
        """How it ended, in words; None while it lives."""
        if self._how is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._how = in_words(os.waitstatus_to_exitcode(status)) if pid else None
        return self._how

    def end(self, patience: float) -> str:
        """Wait for its own end, at most `patience` seconds, then kill it; how it ended."""
        if self._how is None:
            with _watched(self.pid) as handle:
                if not select.select([handle], [], [], patience)[0]:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            self._how = in_words(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))
        return self._how


@contextmanager
def _watched(pid: int) -> Iterator[int]:
    """A descriptor that is readable when that child has ended (pidfd_open(2))."""
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def fork(work: Work, keep: Iterable[int]) -> Child:
    """Have `work` done in a child, away from the terminal and from every descriptor but `keep` and standard error;
    what it returns is the child's exit status. Fork while the process has one thread."""
    pid = os.fork()
    if pid == 0:
        _in_child(work, {2, *keep})
    return Child(pid)


def _in_child(work: Work, keep: set[int]) -> NoReturn:
    """Never returns into the parent's code, whatever happens."""
    status = EXIT_SETUP
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # the parent's way to unwind is not ours
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _keep_open(keep)
        status = work()
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


def in_words(code: int) -> str:
    """An exit code as os.waitstatus_to_exitcode gives it."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:  # a real-time signal
        return f"signal {-code}"
