"""The engine makes the proxy's connections to servers.

Law: a socket is made only for what the proxy's own clients were let through to, and is handed over connected. How many
are on their way at a time is bounded; what goes wrong is the answer.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress

import msgspec

from policy import Address, address
from proxy.sockets import Lent, Wanted, receive_wanted, send_lent

_ON_THEIR_WAY = 512
_CONNECTS_WITHIN = 30.0  # seconds; what a client waits for is the client's affair

type May = Callable[[Address, int], bool]


class Lender:
    """Serves one proxy's `lending` end until it hangs up; `may` says where a connection may lead."""

    def __init__(self, lending: socket.socket, may: May) -> None:
        self._lending = lending
        self._may = may
        self._busy: set[asyncio.Task[None]] = set()

    def serve(self) -> None:
        """From now on, in the running loop."""
        self._lending.settimeout(0)
        asyncio.get_running_loop().add_reader(self._lending.fileno(), self._take)

    def close(self) -> None:
        """No more; those on their way are given up. May be called twice."""
        if self._lending.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._lending.fileno())
            for task in self._busy:
                task.cancel()
            self._lending.close()

    def _take(self) -> None:
        try:
            wanted = receive_wanted(self._lending)
        except (OSError, msgspec.DecodeError):
            wanted = None
        if wanted is None:
            self.close()
            return
        if len(self._busy) >= _ON_THEIR_WAY:
            self._answer(Lent(wanted.number, errno.EAGAIN))
            return
        task = asyncio.create_task(self._lend(wanted))
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)

    async def _lend(self, wanted: Wanted) -> None:
        try:
            made = await self._connected(wanted)
        except OSError as error:
            self._answer(Lent(wanted.number, error.errno or errno.ETIMEDOUT))
            return
        with made:
            self._answer(Lent(wanted.number), made)

    async def _connected(self, wanted: Wanted) -> socket.socket:
        """Raises OSError."""
        try:
            there = address(wanted.address)
        except ValueError:
            raise OSError(errno.EINVAL, "not an address") from None
        if not self._may(there, wanted.port):
            raise OSError(errno.EACCES, "no client of the proxy was let through there")
        made = socket.socket(socket.AF_INET if there.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            made.settimeout(0)
            async with asyncio.timeout(_CONNECTS_WITHIN):
                await asyncio.get_running_loop().sock_connect(made, (str(there), wanted.port))
        except BaseException:
            made.close()
            raise
        return made

    def _answer(self, lent: Lent, made: socket.socket | None = None) -> None:
        with suppress(OSError):  # it is gone
            send_lent(self._lending, lent, made)
