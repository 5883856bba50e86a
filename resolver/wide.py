"""Datagrams by the batch on a socket of every address, for questions from behind a host.

Law: ancillary data and nothing else. A reply whose source isn't the address that the question reached would find no way
back through the translation that led it here, so the kernel tells that address and is told it again (ip(7), IP_PKTINFO;
RFC 3542 section 6).
"""

from __future__ import annotations

import errno
import socket
from typing import Final, NamedTuple

from policy.values import Address, address
from resolver.batch import SLOTS, Batch


class _Place(NamedTuple):
    """Behind a peer's address: a header of 16 octets (cmsg(3)), then in_pktinfo (the interface's number, the address
    here, the header's) or in6_pktinfo (the address here, the interface's number). `size` is of both together, `here`
    where the address stands, `interface` where a number stands that is not told again."""

    size: int
    here: slice
    interface: int | None


_PLACES: Final = {
    socket.AF_INET: _Place(socket.CMSG_SPACE(12), slice(36, 40), 32),
    socket.AF_INET6: _Place(socket.CMSG_SPACE(20), slice(44, 60), None),
}
_NUMBER: Final = 4  # octets


class WideBatch(Batch):
    """The slots of one UDP socket of `listeners.make_wide_listeners`."""

    def __init__(self, sock: socket.socket, room: int) -> None:
        self._place = place = _PLACES[socket.AddressFamily(sock.family)]
        super().__init__(sock, room, place.size)
        self._whole = memoryview(bytearray(self._told)).cast("L")
        self._interfaces: memoryview | None = None
        if place.interface is not None:
            step = self.name_size // _NUMBER
            self._interfaces = memoryview(self.names).cast("I")[place.interface // _NUMBER :: step]
        self._none = memoryview(bytes(SLOTS * _NUMBER)).cast("I")

    def receive(self, most: int) -> int:
        """Raises OSError too if the kernel did not say which address a datagram reached."""
        count = super().receive(most)
        untold = self._told[:count] != self._whole[:count]
        self._told[:count] = self._whole[:count]  # room again for as much
        if untold:
            raise OSError(errno.EPROTO, "the kernel did not say which address a datagram reached")
        if self._interfaces is not None:  # else a reply would leave by where its question came in, whatever the route
            self._interfaces[:count] = self._none[:count]
        return count

    def here(self, name: bytes) -> Address:
        return address(name[self._place.here])
