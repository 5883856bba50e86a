"""The journal: one typed record for each decision, as JSON lines.

Law: taking an entry never blocks the caller and never raises. A thread of its own encodes and writes. What can't be
written now waits in a ring of bounded size and is tried again; what falls out of that is counted, and all of it is told
aloud: a journal in trouble neither stops nor opens anything.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import msgspec

from dnsfw.journal.file import Rotation, open_journal
from dnsfw.journal.folding import Folding
from dnsfw.journal.lifecycle import Life
from dnsfw.journal.records import Entry, Taken, as_record
from dnsfw.machine.privilege import User

_BACKLOG = 65_536  # entries held in memory while the disk is slow, or full
_TROUBLED_SECONDS = 1.0  # between two tries
_FOLDED_SECONDS = 5.0
_BATCH = 1_024  # entries written at once
_PARTING_SECONDS = 2.0  # a journal on a dead disk or an unread pipe holds nobody up for longer
_PATIENCE = 2  # times the size at which a file is full: so long the old one is written while a new one is asked for


class JournalState(msgspec.Struct, frozen=True):
    """`file` is "" where none is kept. `lost` records are in no file; `trouble` says why not."""

    file: str
    written: int
    folded: int
    lost: int
    trouble: str
    failing: bool = False


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a journal is kept. `turn_over` asks for a new file, which is given to `Journal.continue_in`; None: the file
    just grows. `tell` says a sentence to people at once."""

    rotation: Rotation = field(default_factory=Rotation)
    turn_over: Callable[[], None] | None = None
    tell: Callable[[str], None] | None = None
    clock: Callable[[], float] = time.time
    pause: float = 0.1  # seconds between two batches


class _Line(NamedTuple):
    """As it is written, and how many decisions it stands for."""

    text: bytes
    decisions: int


class Journal:
    """Writes entries to a file as they come; `record` is safe to call from a packet's path.

    Without a path it does nothing. Decisions are `written`, `folded` into the record of another, or `lost`; `trouble`
    says why they were, or may be.
    """

    def __init__(self, path: Path | None, mode: str, reader: User, keeping: Keeping = Keeping()) -> None:
        self.written = self.folded = self.lost = 0
        self.trouble = ""
        self.failing = False
        self._path = "" if path is None else str(path)
        self._mode = mode
        self._keeping = keeping
        self._folding = Folding()
        self._backlog: deque[Taken] = deque()
        self._in_hand: list[_Line] = []
        self._left: memoryview | None = None  # of what is being written
        self._torn = False
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._idle = False  # the thread waits for something to write
        self._encoder = msgspec.json.Encoder()
        self._file = None if path is None else open_journal(path, reader)
        self._size = 0 if self._file is None else _size(self._file)
        self._full_at: int | None = None  # asked for a new file, at this size
        self._next: int | None = None
        self._thread = threading.Thread(target=self._write_all, name="journal", daemon=True)

    def state(self) -> JournalState:
        """For `dnsfw status`."""
        trouble = self.trouble if self.failing or self.lost else ""
        return JournalState(self._path, self.written, self.folded, self.lost, trouble, self.failing)

    def start(self) -> None:
        """Begin writing; entries taken before are waiting."""
        if self._file is not None:
            self._thread.start()

    def close(self) -> None:
        """Write what is waiting, for at most two seconds; the rest counts as lost. May be called twice."""
        if self._file is None or self._stop.is_set():
            return
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=_PARTING_SECONDS)
        if self._thread.is_alive():
            self.trouble = self.trouble or "nobody takes what is written"
        else:
            os.close(self._file)
        waiting = [*self._backlog, *self._folding.roll()]
        self.lost += sum(taken.times for taken in waiting) + sum(line.decisions for line in self._unwritten())

    def record(self, entry: Entry) -> None:
        """Take one entry. A full backlog loses its oldest entry, counted in `lost`."""
        if self._file is None:
            return
        when = self._keeping.clock()
        if not self._folding.takes(entry, when):
            self._keep(Taken(entry, when, entry.times))

    def tell(self, life: Life) -> None:
        """Take a turn in the guard's own life. `lost` counts decisions alone."""
        if self._file is not None:
            self._keep(Taken(life, life.when, 0))

    def continue_in(self, file: int) -> None:
        """Write to this file from the next line on; it is the journal's to close."""
        self._next = file

    def _keep(self, taken: Taken) -> None:
        if len(self._backlog) >= _BACKLOG:
            self.lost += self._backlog.popleft().times
        self._backlog.append(taken)
        if self._idle:
            self._wake.set()

    def _write_all(self) -> None:
        """The thread's whole life: until told to stop, and then once more."""
        roll_at = 0.0
        while True:
            stopping = self._rest()
            if stopping or time.monotonic() >= roll_at:
                roll_at = time.monotonic() + _FOLDED_SECONDS
                for taken in self._folding.roll():
                    self._keep(taken)
            while (self._in_hand or self._backlog) and self._write():
                pass
            if stopping:
                return

    def _rest(self) -> bool:
        """Until there may be something to do: True if that is to end. An idle guard wakes no processor."""
        if self.failing:
            return self._stop.wait(_TROUBLED_SECONDS)
        self._wake.clear()
        self._idle = True  # before the look, so that what comes after it wakes us
        if not self._backlog and not self._stop.is_set():
            self._wake.wait(_FOLDED_SECONDS if self._folding.pending else None)
        self._idle = False
        return self._stop.wait(self._keeping.pause)

    def _write(self) -> bool:
        """Write a batch, or what is left of one; False if that failed. A line that was cut off (a disk that filled up)
        is ended before it is written again."""
        if not self._in_hand:
            self._in_hand = self._next_batch()
        whole = memoryview(b"\n" * self._torn + b"".join(line.text for line in self._in_hand))
        self._left = left = whole
        try:
            file = self._current()
            while left:
                self._left = left = left[os.write(file, left) :]
        except OSError as error:
            self._fail(error.strerror or str(error))
        else:
            self._recover()
        self._settle(whole, left)
        return not self.failing

    def _next_batch(self) -> list[_Line]:
        taken = [self._backlog.popleft() for _ in range(min(len(self._backlog), _BATCH))]
        return [_Line(self._encoder.encode(as_record(each, self._mode)) + b"\n", each.times) for each in taken]

    def _settle(self, whole: memoryview, left: memoryview) -> None:
        """Count what is in the file now, and keep the rest in hand."""
        out = len(whole) - len(left)
        if out:
            self._torn = whole[out - 1] != ord("\n")
        self._size += out
        unwritten = self._unwritten()
        for line in self._in_hand[: len(self._in_hand) - len(unwritten)]:
            self.written += 1
            self.folded += max(0, line.decisions - 1)
        self._in_hand, self._left = unwritten, None

    def _unwritten(self) -> list[_Line]:
        """The lines in hand that are not in the file, a cut off one among them."""
        if self._left is None:
            return self._in_hand
        cut = bytes(self._left).count(b"\n")
        return self._in_hand[max(0, len(self._in_hand) - cut) :]

    def _current(self) -> int:
        """The file to write to: a new one, if there is one and the old one ends with a whole line."""
        if self._file is None:
            raise OSError("there is no journal")
        if self._next is not None:
            os.close(self._file)
            self._file, self._next = self._next, None
            self._size, self._full_at, self._torn = _size(self._file), None, False
        rotation = self._keeping.rotation
        if self._keeping.turn_over is None or self._size < rotation.octets:
            return self._file
        if self._full_at is None:
            self._full_at = self._size
            self._keeping.turn_over()
        elif self._size > _PATIENCE * rotation.octets:
            raise OSError("the file is full, and no new one can be begun")
        return self._file

    def _fail(self, why: str) -> None:
        self.trouble = why
        if not self.failing and self._keeping.tell is not None:
            self._keeping.tell(f"the journal {self._path} can't be written: {why}. The guard goes on without it.")
        self.failing = True

    def _recover(self) -> None:
        if self.failing and self._keeping.tell is not None:
            self._keeping.tell(f"the journal {self._path} is written again; {self.lost} decisions are not in it.")
        self.failing = False


def _size(file: int) -> int:
    """Of a regular file; anything else never fills up."""
    status = os.fstat(file)
    return status.st_size if S_ISREG(status.st_mode) else -(1 << 62)
