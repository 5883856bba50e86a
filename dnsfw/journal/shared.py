"""Records that outlive the process that wrote them, whenever it dies.

Law: shared memory of fixed size, made by the supervisor, written by one engine at a time and read by the next; the
supervisor never looks at it. Its writer may be killed between any two instructions: what is read is a beginning of
what was written, whole records only. Numbers beside them are each one machine word, so never half written.

There are two areas. Records are appended to one; when it is full, its writer says from the start, in the other one,
what still holds. An area counts once its header is written, which is last; of two, the later.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator
from typing import Final
from zlib import crc32

_NUMBERS: Final = 8
_AREA: Final = 1 << 20  # bytes; only those that were ever written take memory
_HEADER = struct.Struct("=IQ")  # checksum of the rest; epoch, of which the later area has more
_RECORD = struct.Struct("=IH")  # checksum of length and body, begun with the epoch; the body's length
_LENGTH = struct.Struct("=H")
LARGEST: Final = 0xFFFF


class SharedLog:
    """`area` is in bytes. `numbers` are eight unsigned words, 0 at first."""

    def __init__(self, area: int = _AREA) -> None:
        self._area = area
        self._memory = mmap.mmap(-1, mmap.PAGESIZE + 2 * area)  # MAP_SHARED: forked children have the same
        self.numbers = memoryview(self._memory)[: 8 * _NUMBERS].cast("Q")
        self._epoch = 0
        self._end = self._start = 0

    def read(self) -> Iterator[bytes]:
        """What the writer before wrote. Then `rewrite`, before anything is appended."""
        epoch, start = max(self._epochs())
        self._epoch = epoch
        at, end = start + _HEADER.size, start + self._area
        while epoch and at + _RECORD.size <= end:
            checksum, length = _RECORD.unpack_from(self._memory, at)
            body = self._memory[at + _RECORD.size : min(end, at + _RECORD.size + length)]
            if length == 0 or checksum != _checksum(body, epoch):
                return
            yield body
            at += _RECORD.size + length

    def append(self, body: bytes) -> bool:
        """One record of at most LARGEST bytes; False if there is no room for it: then `rewrite`."""
        at = self._end
        if not self._start or at + _RECORD.size + len(body) > self._start + self._area:
            return False
        record = _RECORD.pack(_checksum(body, self._epoch), len(body)) + body
        self._memory[at : at + len(record)] = record
        self._end = at + len(record)
        return True

    def rewrite(self, bodies: Iterable[bytes]) -> int:
        """All that holds, the most important first; how many records found no room. Half of it stays for more."""
        self._epoch += 1
        self._start = mmap.PAGESIZE + self._area * (self._epoch % 2)
        self._memory[self._start : self._start + _HEADER.size] = bytes(_HEADER.size)
        self._end = self._start + _HEADER.size
        lost = 0
        for body in bodies:
            if self._end - self._start > self._area // 2 or not self.append(body):
                lost += 1
        epoch = self._epoch.to_bytes(8, "little")
        self._memory[self._start : self._start + _HEADER.size] = _HEADER.pack(crc32(epoch), self._epoch)
        return lost

    def close(self) -> None:
        """Let go of this process's view."""
        self.numbers.release()
        self._memory.close()

    def _epochs(self) -> Iterator[tuple[int, int]]:
        """Of each area, 0 for one that is not whole; and where it starts."""
        for start in (mmap.PAGESIZE, mmap.PAGESIZE + self._area):
            checksum, epoch = _HEADER.unpack_from(self._memory, start)
            yield (epoch if checksum == crc32(epoch.to_bytes(8, "little")) else 0), start


def _checksum(body: bytes, epoch: int) -> int:
    """No record of an earlier epoch passes for one of this."""
    return crc32(body, crc32(_LENGTH.pack(len(body)), epoch & 0xFFFFFFFF))
