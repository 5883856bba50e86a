"""cgroup2 directories of our own: where the BPF programs hang and the guarded processes are counted.

Law: the only file that writes to cgroupfs (cgroups(7)).
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dnsfw.errors import SetupError

_CONTROLLERS = ("pids", "memory", "devices", "cpu", "freezer")  # of cgroup v1, each enough to tell a container


def parse_mounts(mounts: str) -> Path | None:
    """The cgroup2 mount in the text of /proc/mounts; None without one."""
    return next((Path(target) for target, kind, _ in _mounts(mounts) if kind == "cgroup2"), None)


@dataclass(frozen=True, slots=True)
class Legacy:
    """A cgroup v1 hierarchy: one of its controllers, and where it is mounted."""

    controller: str
    mount: Path


def read_mounts() -> str:
    return os.fsdecode(Path("/proc/mounts").read_bytes())


def _mounts(text: str) -> Iterator[tuple[str, str, str]]:
    """Target, kind and options of each. Users choose how their own (FUSE) are called: the kernel escapes space, tab and
    line feed, and no other separator (proc_pid_mounts(5))."""
    for line in text.rstrip("\n").split("\n") if text else ():
        _, target, kind, options, *_ = line.split(" ")
        yield target, kind, options


def legacy(mounts: str) -> Legacy | None:
    """The cgroup v1 hierarchy that tells containers apart, in the text of /proc/mounts. Engines put a container into
    all of them, so the first will do; None where cgroup2 is all there is."""
    found = {}
    for target, kind, options in _mounts(mounts):
        if kind == "cgroup":
            found.update({option: Path(target) for option in options.split(",") if option in _CONTROLLERS})
    return next((Legacy(controller, found[controller]) for controller in _CONTROLLERS if controller in found), None)


def find_root() -> Path:
    """Where cgroup2 is mounted: /sys/fs/cgroup, or below it on hybrid machines. Raises SetupError."""
    root = parse_mounts(read_mounts())
    if root is None:
        raise SetupError(
            "This machine has no cgroup2 mount, so no process can be named as a socket's owner.",
            "Mount one: mount -t cgroup2 none /sys/fs/cgroup",
        )
    return root


def own_directory(root: Path, proc_self_cgroup: str) -> Path:
    """The cgroup2 directory that this process is in, from the text of /proc/self/cgroup."""
    for line in proc_self_cgroup.rstrip("\n").split("\n"):
        hierarchy, _, path = line.split(":", 2)
        if hierarchy == "0":
            return root / path.lstrip("/")
    return root


def place(name: str) -> Path:
    """Where `cgroup(name)` will be. Raises SetupError."""
    return own_directory(find_root(), os.fsdecode(Path("/proc/self/cgroup").read_bytes())) / name


@contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """A new cgroup below our own, so that limits set on us hold for it too; at exit its processes are killed."""
    directory = place(name)
    try:
        directory.mkdir()
    except OSError as error:
        raise SetupError(
            f"The cgroup {directory} can't be made: {error.strerror}.", "cgroup2 must be writable."
        ) from error
    try:
        yield directory
    finally:
        remove(directory)


def join(directory: Path) -> None:
    """Move this process in."""
    (directory / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def remove(directory: Path, patience: float = 2.0) -> None:
    """Kill what is in it, wait until it is empty (at most `patience` seconds), remove it. Not there: fine."""
    if not directory.is_dir():
        return
    _kill(directory)
    _await_empty(directory, patience)
    with suppress(OSError):  # still busy: the next start finds it in the run's record
        directory.rmdir()


def _kill(directory: Path) -> None:
    switch = directory / "cgroup.kill"
    if switch.exists():
        switch.write_text("1", encoding="ascii")
        return
    for pid in (directory / "cgroup.procs").read_text(encoding="ascii").split():  # before Linux 5.14
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def _await_empty(directory: Path, patience: float) -> None:
    """cgroup.events wakes pollers with POLLPRI when `populated` changes (cgroups(7))."""
    deadline = time.monotonic() + patience
    with (directory / "cgroup.events").open(encoding="ascii") as changes:
        poller = select.poll()
        poller.register(changes, select.POLLPRI)
        while "populated 1" in changes.read():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            poller.poll(left * 1000)
            changes.seek(0)
