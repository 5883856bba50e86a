"""Waiting for the command and the engine, and passing signals on.

Law: signals are waited for, never handled: no code of ours runs at an arbitrary moment. `WAITED` must be blocked.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

PASSED_ON = frozenset(
    {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM}
)
WAITED = PASSED_ON | {signal.SIGCHLD}


@contextmanager
def held_back() -> Iterator[None]:
    """No signal of `WAITED` arrives inside: what is made there is either not begun or in its owner's hands."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True, slots=True)
class Ended:
    """The command's exit status (128 plus the signal's number if one ended it), and whether the engine outlived it."""

    status: int
    guarded: bool


def supervise(command: int, engine: int) -> Ended:
    """Until `command` (a child) ends. `engine` (a child too) may end before it."""
    guarded = True
    while True:
        guarded = guarded and not _ended(engine)
        status = _status(command)
        if status is not None:
            return Ended(status, guarded)
        received = signal.sigwaitinfo(WAITED)
        if received.si_signo in PASSED_ON and not _has_reached_the_command(received):
            with suppress(ProcessLookupError):
                os.kill(command, received.si_signo)


def _has_reached_the_command(received: signal.struct_siginfo) -> bool:
    """A terminal's signals (SI_KERNEL: sigaction(2)) go to its foreground process group, and we share the command's.

    But a terminal that is closed tells its session's leader alone (termios(3), CLOCAL): which we may be.
    """
    told_alone = received.si_signo == signal.SIGHUP and os.getsid(0) == os.getpid()
    return received.si_code > 0 and not told_alone


_ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def until_told(engine: int | None) -> bool:
    """Until a signal says that it is time to end: True. False if `engine` (a child) ended before."""
    while True:
        if engine is not None and _ended(engine):
            return False
        if signal.sigwaitinfo(WAITED).si_signo in _ENDING:
            return True


def _ended(child: int) -> bool:
    pid, _ = os.waitpid(child, os.WNOHANG)
    return pid == child


def _status(child: int) -> int | None:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
