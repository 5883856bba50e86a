"""PID 1 of a guarded command: reaps, passes signals on, ends with the command's status.

Law: run as a script by path in an isolated interpreter (`python -I -S`), so it imports the standard library's
smallest part and nothing of ours. It holds no capability but KILL. When it ends, the kernel kills what is left in its
PID namespace (pid_namespaces(7)).

Usage: init.py PID   (the command, a child of ours already)
"""

import os
import signal
import sys

# A terminal's signals (SI_KERNEL) reach the command by themselves, as it is in the same process group: only what
# another process sent us is passed on.
_PASSED_ON = (
    signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
    signal.SIGCONT, signal.SIGWINCH,
)  # fmt: skip


def main(command: int) -> int:
    """Wait for `command`; its exit status, or 128 plus the signal that ended it."""
    waited = {signal.SIGCHLD, *_PASSED_ON}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    while True:
        status = _reap(command)
        if status is not None:
            return status if status >= 0 else 128 - status
        received = signal.sigwaitinfo(waited)
        if received.si_signo != signal.SIGCHLD and received.si_code <= 0:  # SI_USER and its kin: sigaction(2)
            os.kill(command, received.si_signo)


def _reap(command: int) -> int | None:
    """Collect every child that ended; the command's own exit code if it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        if pid == 0:
            return None
        if pid == command:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
