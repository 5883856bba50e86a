"""`dnsfw down`: this host is open again, whatever guarded it and however that ended.

Law: who guards is told to end, and takes down what is its own; what a dead one left is swept. Twice is harmless.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress

from dnsfw.channel import Finished
from dnsfw.errors import EXIT_DENIED, SetupError
from dnsfw.host import runs
from dnsfw.place import QUEUE
from dnsfw.supervisor.up import name
from dnsfw.terminal import complain, show
from firewall import table

_ENDS_WITHIN = 15.0  # seconds


def down(*, report: bool, fail_on_deny: bool) -> int:
    """The exit status. Raises SetupError where a guard doesn't end."""
    finished = _end_running()
    if not runs.is_live(name()):
        with runs.claimed(name()):  # sweeps a dead one's record
            table.remove(QUEUE)
    if report and finished is None:
        complain("no guard was up, or it died before it could tell what it denied.")
    elif report and finished is not None:
        show(finished.summary)
    return EXIT_DENIED if fail_on_deny and finished is not None and finished.denied else 0


def _end_running() -> Finished | None:
    """Tell a guard that is up to end, and wait; its last word. Raises SetupError."""
    holder = runs.holder(name())
    if holder is None:
        return None
    with runs.listening(name()) as last_word, suppress(ProcessLookupError):
        process = os.pidfd_open(holder)
        try:
            if runs.holder(name()) != holder:  # it ended, and the number may be another's by now
                return last_word()
            signal.pidfd_send_signal(process, signal.SIGTERM)
            if not select.select([process], [], [], _ENDS_WITHIN)[0]:
                raise SetupError(
                    f"The guard (process {holder}) doesn't end.", f"kill -KILL {holder}, then call `dnsfw down` again."
                )
        finally:
            os.close(process)
        return last_word()
    return None
