"""The journal: one typed record for each decision, as JSON lines.

Law: records are plain values; taking one never blocks the caller and never raises. A thread of its own encodes and
writes; what it can't keep up with or can't write is counted and told at the end, never waited for.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import msgspec

from dnsfw.control.messages import JournalState
from dnsfw.errors import UsageError
from dnsfw.privilege import User, acting_as
from policy import Decision, Flow, Owner, Query, Request, Spent, Subject

SCHEMA = 1
_BACKLOG = 65_536  # entries held in memory while the disk is slow
_BATCH_SECONDS = 0.1
_BATCH = 1_024  # entries written at once
_PARTING_SECONDS = 2.0  # a journal on a dead disk or an unread pipe holds nobody up for longer


@dataclass(frozen=True, slots=True)
class Entry:
    """What the gate hands over: a subject, what was decided, and what was known. `fault` is an error's text, or what
    somebody else complained of, `spent` what a wildcard's budget comes to where this query was paid for or could not
    be. `times` is how often it came, for a question that was repeated within a second."""

    subject: Subject | None
    decision: Decision
    owner: Owner | None
    names: tuple[str, ...]
    fault: str | None = None
    spent: Spent | None = None
    times: int = 1


class SubjectRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A query (`name`, `qtype`), a flow (`proto` to `dport`) or an HTTP request on one (the rest), addresses as text.
    `path` is without its query, which may hold secrets."""

    kind: str
    name: str | None = None
    qtype: int | None = None
    proto: int | None = None
    src: str | None = None
    sport: int | None = None
    dst: str | None = None
    dport: int | None = None
    scheme: str | None = None
    host: str | None = None
    method: str | None = None
    path: str | None = None


class RuleRecord(msgspec.Struct, frozen=True):
    """Where the deciding rule stands."""

    file: str
    line: int
    text: str


class OwnerRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The process behind the socket."""

    pid: int
    start_time: int
    uid: int
    exe: str
    argv: tuple[str, ...]
    cgroup: str
    complete: bool = True


class SpentRecord(msgspec.Struct, frozen=True):
    """What one wildcard has cost: new names and the octets chosen in them, of this minute and in all. `entropy` is this
    name's, in bits an octet: told, never judged by."""

    names_minute: int
    octets_minute: int
    names_job: int
    octets_job: int
    entropy: float


class Record(msgspec.Struct, frozen=True, omit_defaults=False):
    """One decision, or the same one `times` within a second. `v` is the schema's number, `time` RFC 3339 in UTC, `mode`
    enforce or audit."""

    v: int
    time: str
    mode: str
    subject: SubjectRecord
    decision: str
    reason: str
    rule: RuleRecord | None
    owner: OwnerRecord | None
    names: tuple[str, ...]
    fault: str | None = None
    spent: SpentRecord | None = None
    times: int = 1


def to_record(entry: Entry, when: float, mode: str) -> Record:
    """`when` is seconds since the epoch."""
    decision = entry.decision
    rule = decision.rule
    return Record(
        v=SCHEMA,
        time=rfc3339(when),
        mode=mode,
        subject=_subject(entry.subject),
        decision=decision.action.value,
        reason=decision.reason.value,
        rule=None if rule is None else RuleRecord(rule.source.file, rule.source.line, rule.source.text),
        owner=None if entry.owner is None else _owner(entry.owner),
        names=entry.names,
        fault=entry.fault,
        spent=None if entry.spent is None else _spent(entry.spent),
        times=entry.times,
    )


def rfc3339(when: float) -> str:
    """Seconds since the epoch as UTC text."""
    seconds, micros = divmod(round(when * 1e6), 1_000_000)
    return f"{_second(seconds)}.{micros:06}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    """Most entries of a batch are of one second, and its text is what costs most in a record."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


_text = lru_cache(maxsize=1024)(str)  # of addresses, of which few speak and many are spoken to


def _subject(subject: Subject | None) -> SubjectRecord:
    if subject is None:
        return SubjectRecord("unreadable")
    if isinstance(subject, Query):
        client = subject.client
        return SubjectRecord("query", subject.name, subject.qtype, client.proto, _text(client.src), client.sport)
    if isinstance(subject, Request):
        url = (subject.scheme, subject.host, subject.method, subject.path)
        return SubjectRecord("request", None, None, *_ends(subject.flow), *url)
    return SubjectRecord("flow", None, None, *_ends(subject))


def _ends(flow: Flow) -> tuple[int, str, int, str, int]:
    return flow.proto, _text(flow.src), flow.sport, _text(flow.dst), flow.dport


def _owner(owner: Owner) -> OwnerRecord:
    return OwnerRecord(owner.pid, owner.start_time, owner.uid, owner.exe, owner.argv, owner.cgroup, owner.complete)


def _spent(spent: Spent) -> SpentRecord:
    counts = (spent.names_minute, spent.octets_minute, spent.names_job, spent.octets_job)
    return SpentRecord(*counts, round(spent.entropy, 2))


class Journal:
    """Writes entries to a file as they come; `record` is safe to call from a packet's path.

    Without a path it does nothing. `lost` counts the entries that are not in the file, `trouble` says why.
    """

    def __init__(self, path: Path | None, mode: str, reader: User, clock: Callable[[], float] = time.time) -> None:
        self.lost = 0
        self.written = 0
        self.trouble = ""
        self._path = "" if path is None else str(path)
        self._mode = mode
        self._clock = clock
        self._backlog: deque[tuple[float, Entry]] = deque(maxlen=_BACKLOG)
        self._in_hand = 0
        self._left = memoryview(b"")
        self._torn = False
        self._stop = threading.Event()
        self._file = None if path is None else _open(path, reader)
        self._thread = threading.Thread(target=self._write_all, args=(self._file,), name="journal", daemon=True)

    def state(self) -> JournalState:
        """For `dnsfw status`."""
        return JournalState(self._path, self.written, 0, self.lost, self.trouble)

    def start(self) -> None:
        """Begin writing; entries taken before are waiting."""
        if self._file is not None:
            self._thread.start()

    def close(self) -> None:
        """Write what is waiting, for at most two seconds; the rest counts as lost. May be called twice."""
        if self._file is None or self._stop.is_set():
            return
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=_PARTING_SECONDS)
        if self._thread.is_alive():
            self.trouble = self.trouble or "nobody takes what is written"
        else:
            os.close(self._file)
        self.lost += len(self._backlog) + self._unwritten()

    def record(self, entry: Entry) -> None:
        """Take one entry. A full backlog loses its oldest entry, counted in `lost`."""
        if self._file is None:
            return
        if len(self._backlog) == _BACKLOG:
            self.lost += 1
        self._backlog.append((self._clock(), entry))

    def _write_all(self, file: int) -> None:
        """The thread's whole life: until told to stop, and then once more."""
        encoder = msgspec.json.Encoder()
        while True:
            stopping = self._stop.wait(_BATCH_SECONDS)
            while self._backlog:
                self._write(file, self._next_batch(encoder))
            if stopping:
                return

    def _next_batch(self, encoder: msgspec.json.Encoder) -> list[bytes]:
        batch = [self._backlog.popleft() for _ in range(min(len(self._backlog), _BATCH))]
        return [encoder.encode(to_record(entry, when, self._mode)) + b"\n" for when, entry in batch]

    def _write(self, file: int, lines: list[bytes]) -> None:
        """A line that was cut off (a disk that filled up) is ended before the next one begins."""
        whole = memoryview(b"\n" * self._torn + b"".join(lines))
        self._in_hand, self._left = len(lines), whole
        try:
            while self._left:
                self._left = self._left[os.write(file, self._left) :]
        except OSError as error:  # disk full, a closed pipe: the guard goes on and says so at the end
            self.lost += self._unwritten()
            self.trouble = error.strerror or str(error)
        self.written += self._in_hand - self._unwritten()
        if len(self._left) < len(whole):
            self._torn = whole[len(whole) - len(self._left) - 1] != ord("\n")
        self._left = memoryview(b"")

    def _unwritten(self) -> int:
        """The entries in hand that are not in the file, a cut off one among them."""
        return min(self._in_hand, bytes(self._left).count(b"\n"))


def _open(path: Path, reader: User) -> int:
    """Append to `path`, for `reader` and root alone to read. Raises UsageError.

    Opened as `reader` where that is allowed. Where root's right is needed no link is followed: a command that was
    guarded before could have left one there.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        try:
            with acting_as(reader):
                opened = os.open(path, flags, 0o600)
        except PermissionError:
            if path.resolve() != path.absolute():
                raise
            opened = os.open(path, flags | os.O_NOFOLLOW, 0o600)
        os.set_blocking(opened, True)
    except OSError as error:
        raise UsageError(
            f"The journal {path} can't be written: {error.strerror}.", "Name another: --journal FILE"
        ) from error
    return opened
