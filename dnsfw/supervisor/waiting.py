"""Waiting for the command and for what the guard needs, and passing signals on.

Law: signals are waited for, never handled: no code of ours runs at an arbitrary moment. `WAITED` must be blocked.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

PASSED_ON = frozenset(
    {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM}
)
WAITED = PASSED_ON | {signal.SIGCHLD, signal.SIGIO}  # a child ended; an engine spoke (dnsfw.channel)


@contextmanager
def held_back() -> Iterator[None]:
    """No signal of `WAITED` arrives inside: what is made there is either not begun or in its owner's hands."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Tended(Protocol):
    """What needs looking after while we wait: a `Guard`, say. `stop_wanted` asks for an end of it all."""

    stop_wanted: bool

    def tend(self) -> None:
        """Do what is to be done; never wait."""

    def reload(self) -> None:
        """Have the policy read again."""

    def patience(self) -> float | None:
        """Seconds until `tend` should be called without any signal; None for ever."""


def supervise(command: int, guard: Tended) -> int:
    """Until `command` (a child) ends: its exit status, or 128 plus the signal's number if one ended it."""
    while True:
        guard.tend()
        if guard.stop_wanted:
            _pass_on(signal.SIGTERM, command)
            guard.stop_wanted = False
        status = _status(command)
        if status is not None:
            return status
        received = _signal(guard)
        if received and received.si_signo in PASSED_ON and not _has_reached_the_command(received):
            _pass_on(received.si_signo, command)


def _pass_on(number: int, command: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(command, number)


def _signal(guard: Tended) -> signal.struct_siginfo | None:
    """The next one; None when the guard wants tending before."""
    patience = guard.patience()
    return signal.sigwaitinfo(WAITED) if patience is None else signal.sigtimedwait(WAITED, patience)


def _has_reached_the_command(received: signal.struct_siginfo) -> bool:
    """A terminal's signals (SI_KERNEL: sigaction(2)) go to its foreground process group, and we share the command's.

    But a terminal that is closed tells its session's leader alone (termios(3), CLOCAL): which we may be.
    """
    told_alone = received.si_signo == signal.SIGHUP and os.getsid(0) == os.getpid()
    return received.si_code > 0 and not told_alone


_ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def until_told(guard: Tended) -> None:
    """Until a signal, or a word over the control socket, says that it is time to end.

    SIGHUP from a process means the policy; from the kernel, that the terminal is gone (sigaction(2), SI_KERNEL).
    """
    while True:
        guard.tend()
        if guard.stop_wanted:
            return
        received = _signal(guard)
        if received is None:
            continue
        if received.si_signo == signal.SIGHUP and received.si_code <= 0:
            guard.reload()
        elif received.si_signo in _ENDING:
            return


def _status(child: int) -> int | None:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
