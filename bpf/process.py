"""What /proc says of a process.

Law: the only file that reads /proc/PID. Facts belong to one moment: they are read again until the process has the same
start time, and runs the same program, before and after; what never holds still is said to be incomplete (proc(5)).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bpf.records import arguments, text

_ARGV_BYTES = 1024  # as owner.h: what follows is cut, and said to be
_READINGS = 4
_GENERATIONS = 64  # of ancestors that are looked at


@dataclass(frozen=True, slots=True)
class Stat:
    """/proc/PID/stat, in part: `start_time` is in clock ticks since boot, so that with `pid` it names one process."""

    pid: int
    comm: str
    parent: int
    start_time: int


@dataclass(frozen=True, slots=True)
class Process:
    """A process at one moment. `cgroups` are its paths by hierarchy, a cgroup v1 controller's or "" for cgroup2;
    `namespaces` the inode numbers of its "mnt" and "user" namespaces, `pid_depth` how many PID namespaces it is below
    ours. What can't be read is "", None or missing."""

    stat: Stat
    uid: int
    exe: str
    argv: tuple[str, ...]
    cgroups: tuple[tuple[str, str], ...]
    namespaces: tuple[tuple[str, int], ...]
    pid_depth: int | None
    complete: bool

    def cgroup(self, controller: str) -> str:
        return dict(self.cgroups).get(controller, "")

    def namespace(self, kind: str) -> int | None:
        return dict(self.namespaces).get(kind)


def read_stat(pid: int) -> Stat | None:
    """None if there is no such process."""
    raw = _read(pid, "stat")
    name, end, rest = raw.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    if not end or len(fields) < 20:
        return None
    return Stat(pid, text(name), int(fields[1]), int(fields[19]))  # fields 4 and 22


def ancestors(pid: int) -> Iterator[Stat]:
    """A process and those above it, nearest first, as far as they can be seen."""
    for _ in range(_GENERATIONS):
        stat = read_stat(pid)
        if stat is None:
            return
        yield stat
        pid = stat.parent


def read_process(pid: int) -> Process | None:
    """None if it is gone, or another one has its number by now."""
    process = None
    for _ in range(_READINGS):
        before = _marks(pid)
        process = _reading(pid)
        after = _marks(pid)
        if process is None or before[:1] != after[:1]:
            return None
        if before == after:
            return process
    return process and replace(process, exe="", argv=(), complete=False)  # it runs one program after the other


def _marks(pid: int) -> list[bytes]:
    """When a process started, and where the kernel has laid the program that it runs: at random, so that an execve,
    even of the same file, changes it (/proc/PID/stat fields 22, 26 to 28 and 45 to 51; randomize_va_space)."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return [*fields[19:20], *fields[23:26], *fields[42:49]]


def _reading(pid: int) -> Process | None:
    stat, status = read_stat(pid), _status(pid)
    exe, argv, namespaces = _exe(pid), _read(pid, "cmdline", _ARGV_BYTES + 1), tuple(_namespaces(pid))
    if stat is None or "Uid" not in status:
        return None
    return Process(
        stat,
        uid=int(status["Uid"][0]),  # the real one, as BPF has it
        exe=exe,
        argv=arguments(argv[:_ARGV_BYTES]),
        cgroups=tuple(_cgroups(_read(pid, "cgroup"))),
        namespaces=namespaces,
        pid_depth=len(status["NSpid"]) - 1 if "NSpid" in status else None,
        complete=bool(exe) and 0 < len(argv) <= _ARGV_BYTES and len(namespaces) == len(_KINDS),
    )


def _read(pid: int, name: str, most: int = 1 << 16) -> bytes:
    """b"" if it can't be read: gone, or not ours to see."""
    try:
        with Path(f"/proc/{pid}/{name}").open("rb") as file:
            return file.read(most)
    except OSError:
        return b""


def _exe(pid: int) -> str:
    try:
        return text(os.fsencode(Path(f"/proc/{pid}/exe").readlink()))
    except OSError:  # a kernel thread, a zombie, or not ours to see
        return ""


def _status(pid: int) -> dict[str, list[str]]:
    """The words of each line of /proc/PID/status, by its name."""
    lines = (line.partition(":") for line in text(_read(pid, "status")).split("\n"))
    return {name: words.split() for name, _, words in lines}


def _cgroups(lines: bytes) -> Iterator[tuple[str, str]]:
    for line in lines.rstrip(b"\n").split(b"\n"):  # a cgroup's name may have any other octet
        number, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        for controller in controllers.split(b",") if number != b"0" else (b"",):
            yield text(controller), text(path)


_KINDS = ("mnt", "user")


def _namespaces(pid: int) -> Iterator[tuple[str, int]]:
    for kind in _KINDS:
        try:
            yield kind, Path(f"/proc/{pid}/ns/{kind}").stat().st_ino
        except OSError:
            return
