"""Going on in the background once there is something to go on with.

Law: the caller waits, and hears what is said meanwhile, until the work behind is in force or has failed; then neither
its terminal nor its pipes are held by us any more.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from dnsfw.channel import Channel, Failed, Message, Ready, channel_pair
from dnsfw.errors import EXIT_SETUP, DnsfwError, SetupError

type InForce = Callable[[Path], None]
type Work = Callable[[InForce], int]

_STARTS_WITHIN = 120.0  # seconds; more than all that is waited for behind


def detach(work: Work) -> int:
    """Have `work` done by a process of its own; its pid, once it called what it was given with a file to complain to
    from then on. Raises DnsfwError with the reason why it never did."""
    ours, theirs = channel_pair()
    errors, their_errors = os.pipe()
    pid = os.fork()
    if pid == 0:
        _in_background(work, theirs, their_errors)
    theirs.close()
    os.close(their_errors)
    try:
        said = _await(ours, errors)
    finally:
        ours.close()  # who isn't in force yet, gives up
        os.close(errors)
    if isinstance(said, Ready):
        return pid
    if isinstance(said, Failed):
        failure = DnsfwError(said.problem, said.remedy)
        failure.exit_status = said.exit_status
        raise failure
    raise SetupError("The guard died while starting.", "This is a fault of dnsfw's; please report it.")


def _await(channel: Channel, errors: int) -> Message | None:
    """The first word; what is printed until then appears here."""
    while True:
        readable, _, _ = select.select([errors, channel.fileno()], [], [], _STARTS_WITHIN)
        if errors in readable and (printed := os.read(errors, 1 << 16)):
            with suppress(OSError):
                os.write(sys.stderr.fileno(), printed)
        elif channel.fileno() in readable:
            return channel.receive(patience=0)
        elif not readable:
            return None


def _in_background(work: Work, channel: Channel, errors: int) -> NoReturn:
    """Never returns into the caller's code."""
    status = EXIT_SETUP
    try:
        os.setsid()
        _leave_the_caller_alone(channel.fileno(), errors)

        def in_force(log: Path) -> None:
            complaints = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.dup2(complaints, 2)
            os.close(complaints)
            channel.send(Ready())  # raises OSError where nobody waits any more: then it is taken back
            channel.close()

        status = work(in_force)
    except DnsfwError as error:
        status = error.exit_status
        with suppress(OSError):
            channel.send(Failed(error.problem, error.remedy, error.exit_status))
    except SystemExit as end:  # a signal (dnsfw.cli)
        status = end.code if isinstance(end.code, int) else EXIT_SETUP
    except BaseException:  # noqa: BLE001 - the process's last frame; what it prints is all that is known
        traceback.print_exc()
    finally:
        os._exit(status)


def _leave_the_caller_alone(*kept: int) -> None:
    """Its descriptors are closed here; ours for errors (the last) becomes standard error."""
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor not in kept:
            with suppress(OSError):  # the listing's own
                os.close(descriptor)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in {0, 1} - {null}:
        os.dup2(null, standard)
    os.dup2(kept[-1], 2)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup(1) or not: from here on it means the policy
