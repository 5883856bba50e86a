"""Telling a service manager how the guard is: sd_notify(3) and its watchdog.

Law: a datagram at a time, never waited for; without a manager nothing happens. That the guard lives is asked, never
assumed.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Protocol


class Notify:
    """`interval` is how often the manager wants to hear that we live, in seconds; None if it doesn't."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.interval = watchdog_interval(environ)

    @property
    def managed(self) -> bool:
        """Is there a service manager?"""
        return bool(self._address)

    def say(self, *words: str) -> None:
        """READY=1, STOPPING=1, STATUS=…, WATCHDOG=1."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.sendto("\n".join(words).encode(), address)


def watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """A third of the time after which the manager gives us up, in seconds (sd_watchdog_enabled(3)). None: it never
    does."""
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 3e6 if usec.isascii() and usec.isdigit() and int(usec) > 0 else None


class Tended(Protocol):
    """A guard, as `dnsfw.supervisor.waiting` has it, that can say whether its engine lives."""

    stop_wanted: bool

    def tend(self) -> None: ...
    def reload(self) -> None: ...
    def patience(self) -> float | None: ...
    def lively(self, within: float) -> bool: ...


class Watched:
    """The same guard, and the manager is told that it lives, as long as it does."""

    def __init__(self, guard: Tended, notify: Notify) -> None:
        self._guard = guard
        self._notify = notify
        self._next = 0.0

    @property
    def stop_wanted(self) -> bool:
        return self._guard.stop_wanted

    @stop_wanted.setter
    def stop_wanted(self, wanted: bool) -> None:
        self._guard.stop_wanted = wanted

    def tend(self) -> None:
        self._guard.tend()
        interval = self._notify.interval
        if interval is not None and monotonic() >= self._next:
            self._next = monotonic() + interval
            if self._guard.lively(2 * interval):
                self._notify.say("WATCHDOG=1")

    def reload(self) -> None:
        self._guard.reload()

    def patience(self) -> float | None:
        if self._notify.interval is None:
            return self._guard.patience()
        left = max(0.0, self._next - monotonic())
        waits = self._guard.patience()
        return left if waits is None else min(waits, left)
