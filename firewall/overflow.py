"""How full the queue is, and what it lost.

Law: a pure parser of nfnetlink_queue's status file, and the reader that keeps it open.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

_STATUS: Final = "/proc/thread-self/net/netfilter/nfnetlink_queue"
_ENOUGH: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Load:
    """Packets of one queue: `waiting` now; since it was bound, lost because it was `full`, or because our socket was
    (`unsent`). A lost packet was dropped."""

    waiting: int = 0
    full: int = 0
    unsent: int = 0

    @property
    def lost(self) -> int:
        return self.full + self.unsent


def parse_status(text: str, number: int) -> Load:
    """The line of queue `number`; an unbound queue has lost nothing. Raises ValueError for another format.

    Source: seq_show() in the kernel's net/netfilter/nfnetlink_queue.c: number, port id, waiting, copy mode, copy range,
    full, unsent, last id, 1.
    """
    for line in text.splitlines():
        fields = [int(field) for field in line.split()]
        if len(fields) != 9:
            raise ValueError(f"not a queue's status: {line!r}")
        if fields[0] == number:
            return Load(fields[2], fields[5], fields[6])
    return Load()


class LoadFile:
    """Reads the load of queue `number` of the network namespace that is current at construction. A context manager."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._file = os.open(_STATUS, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> Load:
        """Some system calls: not for every packet."""
        return parse_status(os.pread(self._file, _ENOUGH, 0).decode("ascii"), self._number)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
