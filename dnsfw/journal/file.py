"""The journal's file: opened, and turned over when it is full.

Law: with the rights of the user who reads it, wherever those are enough; nothing that a guarded program could have left
in the way is followed with root's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from dnsfw.errors import UsageError
from dnsfw.machine.privilege import User, acting_as

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file has `octets` it is called FILE.1, the one of that name FILE.2, and so on; there are never more than
    `files` of them, the current one with them."""

    octets: int = 64 << 20
    files: int = 5


def open_journal(path: Path, reader: User) -> int:
    """Append to `path`, for `reader` and root alone to read. Raises UsageError.

    Opened as `reader` where that is allowed. Where root's right is needed no link is followed: a command that was
    guarded before could have left one there.
    """
    try:
        opened = _as_reader_or_root(path, reader, lambda extra: os.open(path, _FLAGS | extra, 0o600))
        os.set_blocking(opened, True)
    except OSError as error:
        raise UsageError(
            f"The journal {path} can't be written: {error.strerror}.", "Name another: --journal FILE"
        ) from error
    return opened


def turn_over(path: Path, reader: User, files: int) -> int:
    """A new, empty file at `path`; the old ones move on by one, the oldest goes. Raises OSError."""
    return _as_reader_or_root(path, reader, lambda extra: _turn(path, files, extra))


def _turn(path: Path, files: int, extra: int) -> int:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | extra)
    try:
        names = [path.name, *(f"{path.name}.{number}" for number in range(1, files))]
        for younger, older in reversed(list(pairwise(names))):
            with suppress(FileNotFoundError):
                os.rename(younger, older, src_dir_fd=folder, dst_dir_fd=folder)
        if files < 2:
            os.unlink(path.name, dir_fd=folder)
        opened = os.open(path.name, _FLAGS | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    os.set_blocking(opened, True)
    return opened


def _as_reader_or_root(path: Path, reader: User, work: Callable[[int], int]) -> int:
    """`work` gets flags to open with."""
    try:
        with acting_as(reader):
            return work(0)
    except PermissionError:
        if path.resolve() != path.absolute():
            raise
        return work(os.O_NOFOLLOW)
