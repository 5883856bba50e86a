"""DNS messages in a TCP stream.

Law: sans-IO, both directions, used by the listeners and towards the upstreams. Source: RFC 1035 4.2.2, RFC 7766 8.
"""

from __future__ import annotations

from typing import Final

LENGTH_SIZE: Final = 2


class FrameError(ValueError):
    """The stream announces a message longer than its reader takes; there is no way to find the next one."""


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(LENGTH_SIZE) + message


class Deframer:
    """Pieces of a stream in, whole messages out, one at a time, so that a reader can stop between two of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> None:
        self._buffer += piece

    def next(self) -> bytes | None:
        """The next whole message, None while it is not there yet. Raises FrameError."""
        if len(self._buffer) < LENGTH_SIZE:
            return None
        end = LENGTH_SIZE + int.from_bytes(self._buffer[:LENGTH_SIZE])
        if end > LENGTH_SIZE + self._limit:
            raise FrameError(f"a message of {end - LENGTH_SIZE} octets")
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[LENGTH_SIZE:end])
        del self._buffer[:end]
        return message
