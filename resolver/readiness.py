"""Which of many short-lived sockets have something to be read.

Law: one epoll of our own, which the loop knows of once. A socket that lives for a single datagram costs the loop's
own add_reader and remove_reader more than the rest of its life. Source: epoll(7).
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

_BATCH: Final = 64  # as many as a listener takes a wake-up: neither starves the other


class Readiness:
    """Calls back when a descriptor is readable or in error, for as long as it is; and `turn_over` after all that were
    so at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turn_over: Callable[[], None] = lambda: None) -> None:
        self._loop, self._turn_over = loop, turn_over
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._wake)

    def add(self, fd: int, readable: Callable[[], None]) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._callbacks[fd] = readable

    def forget(self, fd: int) -> None:
        """Before `fd` is closed, which takes it off the epoll."""
        self._callbacks.pop(fd, None)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _wake(self) -> None:
        """A number may have gone to a new socket since the kernel named it: then that one's read finds nothing."""
        for fd, _ in self._epoll.poll(0, _BATCH):
            if callback := self._callbacks.get(fd):
                callback()
        self._turn_over()
