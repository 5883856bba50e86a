"""The malicious package as a program: first the honest build, then every way out at once.

Law: starts attempts and reports what they were told, one JSON object a line: `way`, `ended` ("" or the error),
`seconds`. Runs as `python -m dnsfw.playground.package ERRAND`, a JSON object: `tokens` (by way), `authority`, `helper`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from dnsfw.playground.package.build import NEEDS
from dnsfw.playground.package.catalogue import WAYS
from dnsfw.playground.package.way import Loot, Way

_PATIENCE = 1.5  # seconds for one socket operation
_DEADLINE = 4  # seconds for an attempt as a whole


def main(errand: str) -> None:
    wanted = json.loads(errand)
    inherited = tuple(_open_sockets())
    socket.setdefaulttimeout(_PATIENCE)

    def loot(way: Way) -> Loot:
        return Loot(wanted["tokens"][way.id], wanted["authority"], wanted["helper"], inherited)

    for need in NEEDS:
        _wait_for([_start(need, loot(need))])
    _wait_for([_start(way, loot(way)) for way in WAYS])


def _start(way: Way, loot: Loot) -> int:
    """A process for the attempt, so that none can spoil or hold up another; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, _give_up)
            signal.alarm(_DEADLINE)
            _report(way, loot)
        finally:
            os._exit(0)
    return pid


def _report(way: Way, loot: Loot) -> None:
    started = time.monotonic()
    try:
        way.attempt(loot)
        ended = ""
    except (OSError, ValueError) as error:
        ended = f"{type(error).__name__}: {error}"
    result = {"way": way.id, "ended": ended, "seconds": round(time.monotonic() - started, 6)}
    os.write(1, json.dumps(result).encode() + b"\n")


def _give_up(_number: int, _frame: object) -> None:
    raise TimeoutError(f"no answer within {_DEADLINE} seconds")


def _wait_for(pids: Iterable[int]) -> None:
    for pid in pids:
        os.waitpid(pid, 0)


def _open_sockets() -> Iterable[int]:
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        try:
            if number > 2 and stat.S_ISSOCK(os.fstat(number).st_mode):
                yield number
        except OSError:
            continue  # the listing's own descriptor, closed by now


if __name__ == "__main__":
    main(sys.argv[1])
