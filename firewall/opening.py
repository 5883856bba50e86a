"""The first octets that a TCP client sends, put in order.

Law: pure, and bounded: no connection takes more than `MOST` octets, whatever arrives in whatever order. What two
readers could put together differently is refused.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 1 << 14  # octets; a ClientHello has some hundred to a few thousand
_NUMBERS: Final = 1 << 32  # sequence numbers come round (RFC 9293 section 3.4)


class OpeningError(Exception):
    """The segments don't make one stream, or too long a one. The message says what is wrong."""


class Opening:
    """One direction of a connection, from `first` on: the sequence number of its first octet, the SYN's plus one."""

    __slots__ = ("_first", "_have", "_octets")

    def __init__(self, first: int) -> None:
        self._first = first
        self._octets = bytearray()
        self._have = 0  # bit n is set where octet n has come

    def add(self, sequence: int, data: bytes) -> bytes:
        """Take a segment; all octets from the first to the first gap.

        Raises OpeningError for one that is out of bounds, or that says otherwise what was said before: it would be its
        receiver who chooses.
        """
        start = (sequence - self._first) % _NUMBERS
        if start >= _NUMBERS // 2:  # from before the first octet: a keep-alive (RFC 9293 section 3.8.4)
            data, start = data[_NUMBERS - start :], 0
        if start + len(data) > MOST:
            raise OpeningError(f"more than {MOST} octets")
        if not start and not self._octets:  # nearly always all there is
            self._octets += data
            self._have = (1 << len(data)) - 1
            return data
        self._put(start, data)
        gap = (~self._have & (self._have + 1)).bit_length() - 1
        return bytes(self._octets[:gap])

    def _put(self, start: int, data: bytes) -> None:
        new = ((1 << len(data)) - 1) << start
        common = self._have & new
        end = start + len(data)
        if common:
            known = self._octets[start:end]
            if any(common >> start + at & 1 and known[at] != data[at] for at in range(len(known))):
                raise OpeningError("two versions of the same octets")
        self._octets.extend(bytes(max(0, end - len(self._octets))))
        self._octets[start:end] = data
        self._have |= new
