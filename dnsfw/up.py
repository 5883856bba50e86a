"""`dnsfw up` and `dnsfw down`: guard the host itself.

Law: the same guard as `run`'s, in the network namespace that we were started in. While it is up nothing opens the host
but its end by a signal: a dead engine leaves everything closed, and so does our own death by SIGKILL.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack

from dnsfw import runs
from dnsfw.cgroups import find_root
from dnsfw.errors import EXIT_SETUP, SetupError
from dnsfw.guard import guarding
from dnsfw.namespaces import network_namespace_id
from dnsfw.place import QUEUE, GuardOptions, Place
from dnsfw.privilege import calling_user
from dnsfw.supervise import WAITED, held_back, until_told
from dnsfw.terminal import say, show
from firewall import table


def up(options: GuardOptions, environ: Mapping[str, str]) -> int:
    """Guard this host until SIGINT, SIGTERM or SIGHUP; the exit status. Raises DnsfwError if it can't."""
    user = calling_user(environ)
    with ExitStack() as stack:
        with held_back():
            record = stack.enter_context(runs.claimed(_name()))
        place = Place(None, find_root(), user, environ, record.directory, time.time())
        starting = stack.enter_context(guarding(options, place))
        guard = starting.enforce()
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)  # tear-down is whole
        say(f"guarding this host{' (audit: nothing is denied)' if options.audit else ''}; Ctrl-C ends it.")
        until_told(guard)
        finished = guard.finish()
    if finished is None:
        return EXIT_SETUP
    if not options.quiet:
        show(finished.summary)
    return 0


def down() -> int:
    """Take away what an `up` left that was killed. Raises SetupError while one is running. Twice is harmless."""
    if runs.is_live(_name()):
        raise SetupError("dnsfw up is running.", "End it with Ctrl-C, or send it SIGTERM.")
    with runs.claimed(_name()):  # sweeps the dead one's record
        table.remove(QUEUE)
    return 0


def _name() -> str:
    """One guard for each host: the record is named after the network namespace."""
    return f"up-{network_namespace_id()}"
