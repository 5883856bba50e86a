"""Noticing that the policy's file was written.

Law: the only file that knows watchfiles, loaded where there is something to watch. It tells that something changed,
never what: the supervisor reads the file as it would if a person had asked. Only a file that root alone can change is
watched, since no one else may change a policy by writing (S4).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnsfw.machine.custody import roots_alone

_STEP_MS = 250  # how soon a change is seen, and how long a writer pauses at its end
_TIMEOUT_MS = 1_000

type Files = Callable[[], Mapping[Path, bytes]]  # as they were when they were read


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
