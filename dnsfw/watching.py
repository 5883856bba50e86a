"""Noticing that the policy's file was written.

Law: the only file that knows watchfiles, loaded where there is something to watch. It tells that something changed,
never what: the supervisor reads the file as it would if a person had asked. Only a file that root alone can change is
watched, since no one else may change a policy by writing (S4).
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

_STEP_MS = 250  # how soon a change is seen, and how long a writer pauses at its end
_TIMEOUT_MS = 1_000

type Files = Callable[[], Mapping[Path, bytes]]  # as they were when they were read


def roots_alone(file: Path) -> bool:
    """Can nobody but root change what this path leads to? Not the file, nor any folder on the way, nor a link's."""
    path = file.absolute()
    try:
        real = path.resolve(strict=True)
        ways = {path, real}
        return all(_is_roots(each) for each in chain(ways, *(way.parents for way in ways)))
    except OSError:
        return False


def _is_roots(path: Path) -> bool:
    """Owned by root, and written by root alone; in a sticky folder (/tmp) what is root's stays root's (inode(7))."""
    found = path.lstat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(found.st_mode)
    return found.st_uid == 0 and (
        not others_write or bool(stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX)
    )


@dataclass(frozen=True, slots=True)
class Told:
    """Who hears of it, in the watch's own thread."""

    changed: Callable[[], object]
    broken: Callable[[Exception], object]


@contextmanager
def watched(files: Files, told: Told) -> Iterator[None]:
    """Until exit: somebody hears of it when one of `files` (in one folder) is no longer what it was, however an editor
    does it, and all of them are still root's alone. Where they aren't at the start, nobody hears anything."""
    now = files()
    if not now or not all(map(roots_alone, now)):
        yield
        return
    stop = threading.Event()
    threading.Thread(target=_watch, args=(files, told, stop), name="watch", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _watch(files: Files, told: Told, stop: threading.Event) -> None:
    """The thread's whole life. What was written before the watch began is found at the first time-out."""
    from watchfiles import watch  # noqa: PLC0415 - most guards have nothing to watch

    options: dict[str, Any] = {"recursive": False, "raise_interrupt": False, "stop_event": stop}
    options |= {"step": _STEP_MS, "rust_timeout": _TIMEOUT_MS, "yield_on_timeout": True}
    begun = False
    try:
        for changes in watch(next(iter(files())).parent, watch_filter=lambda _, path: Path(path) in files(), **options):
            if (changes or not begun) and _differ(files()) and all(map(roots_alone, files())):
                told.changed()
            begun = True
    except Exception as error:  # noqa: BLE001 - the thread's last frame: the guard goes on without it
        told.broken(error)


def _differ(files: Mapping[Path, bytes]) -> bool:
    try:
        return any(path.read_bytes() != was for path, was in files.items())
    except OSError:  # gone: for who reads it to say
        return True
