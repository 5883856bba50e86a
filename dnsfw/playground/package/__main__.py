"""The malicious package as a program: first the honest build, then every way out.

Law: starts attempts and reports what they were told, one JSON object a line: `way`, `ended` ("" or the error's
name), `seconds`. The errand comes on stdin: a JSON object of `tokens` (by way: only those are tried), `authority`,
`helper` and `device`.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import ssl
import stat
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from dnsfw.playground.package import host
from dnsfw.playground.package.build import NEEDS
from dnsfw.playground.package.catalogue import WAYS
from dnsfw.playground.package.way import TIMED_OUT, Answered, Loot, Way

_PATIENCE = 1.0  # seconds for one socket operation
_DEADLINE = 4  # seconds for an attempt as a whole
_AT_ONCE = 4  # attempts: one that waits holds up no other, and the times shown are still the kernel's


def main() -> None:
    wanted = json.load(sys.stdin)
    inherited = tuple(_open_sockets())
    socket.setdefaulttimeout(_PATIENCE)

    def loot(way: Way) -> Loot:
        device = wanted.get("device", "")
        return Loot(wanted["tokens"][way.id], wanted["authority"], wanted["helper"], inherited, device)

    for need in NEEDS:
        if need.id in wanted["tokens"]:
            os.waitpid(_start(need, loot(need)), 0)
    under_way: set[int] = set()
    for way in (way for way in (*WAYS, *host.WAYS) if way.id in wanted["tokens"]):
        if len(under_way) == _AT_ONCE:
            under_way.remove(os.wait()[0])
        under_way.add(_start(way, loot(way)))
    for pid in under_way:
        os.waitpid(pid, 0)


def _start(way: Way, loot: Loot) -> int:
    """A process for the attempt, so that none can spoil or hold up another; its pid."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, _give_up)
        signal.alarm(_DEADLINE)
        _report(way, loot)
        sys.exit()
    return pid


def _report(way: Way, loot: Loot) -> None:
    started = time.monotonic()
    try:
        way.attempt(loot)
        ended = ""
    except (OSError, ValueError) as error:
        ended = _name(error)
    result = {"way": way.id, "ended": ended, "seconds": round(time.monotonic() - started, 6)}
    os.write(1, json.dumps(result).encode() + b"\n")


def _name(error: OSError | ValueError) -> str:
    """ECONNREFUSED, EAI_NONAME and the like (errno(3), getaddrinfo(3)); a protocol's own word; the Python class of what
    has no such name."""
    if isinstance(error, socket.gaierror):
        return next(
            (name for name in dir(socket) if name.startswith("EAI_") and getattr(socket, name) == error.errno), "EAI"
        )
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ssl.SSLError):
        return errno.errorcode.get(error.errno, str(error.errno))
    if isinstance(error, Answered):
        return str(error)
    return TIMED_OUT if isinstance(error, TimeoutError) else type(error).__name__


def _give_up(_number: int, _frame: object) -> None:
    raise TimeoutError(f"no answer within {_DEADLINE} seconds")


def _open_sockets() -> Iterable[int]:
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        try:
            if number > 2 and stat.S_ISSOCK(os.fstat(number).st_mode):
                yield number
        except OSError:
            continue  # the listing's own descriptor, closed by now


if __name__ == "__main__":
    main()
