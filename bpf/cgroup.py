"""A cgroup's path, and who could have made it, from its number.

Law: the only caller of open_by_handle_at(2). The number is the cgroup directory's file handle (cgroups(7),
bpf_get_current_cgroup_id in bpf-helpers(7)), never used twice, so the path is right even when the process that was
in the cgroup is gone.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

from cachetools import LRUCache

from bpf.container import CgroupPlace
from bpf.records import text

_KERNFS = 0xFE  # FILEID_KERNFS of enum fid_type (linux/exportfs.h)
_HANDLE = struct.Struct("=IiQ")  # file_handle: handle_bytes, handle_type, and kernfs's one number
_CACHED = 1024
NOWHERE = CgroupPlace("", 0)

_libc = ctypes.CDLL(None, use_errno=True)


class CgroupPaths:
    """Paths below one mount of a cgroup hierarchy, v2's or one of v1's, as /proc/PID/cgroup has them: "/" is the root.
    Needs CAP_DAC_READ_SEARCH."""

    def __init__(self, mount: Path) -> None:
        self._mount = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._prefix = _name(self._mount).rstrip("/")
        self._places: LRUCache[int, CgroupPlace] = LRUCache(_CACHED)

    def place(self, number: int) -> CgroupPlace:
        """The place of a cgroup: NOWHERE if there is none of that number any more, or none that we may see."""
        if (known := self._places.get(number)) is not None:
            return known
        if (found := self._look(number)) is not NOWHERE:
            self._places[number] = found
        return found

    def place_of(self, path: str) -> CgroupPlace:
        """The place of a path that /proc/PID/cgroup gave; NOWHERE if it is gone."""
        if not path.startswith("/") or "/.." in path:  # a process outside what this mount shows (cgroup_namespaces(7))
            return NOWHERE
        try:
            directory = os.open(path.lstrip("/") or ".", os.O_PATH | os.O_CLOEXEC, dir_fd=self._mount)
        except OSError:
            return NOWHERE
        return self._described(directory)

    def close(self) -> None:
        os.close(self._mount)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _look(self, number: int) -> CgroupPlace:
        handle = ctypes.create_string_buffer(_HANDLE.pack(8, _KERNFS, number), _HANDLE.size)
        directory = _libc.open_by_handle_at(self._mount, handle, os.O_PATH | os.O_CLOEXEC)
        return NOWHERE if directory < 0 else self._described(directory)

    def _described(self, directory: int) -> CgroupPlace:
        try:
            path = _name(directory)
            roots = self._made_by_root(directory, path)
        except OSError:  # removed while we looked
            return NOWHERE
        finally:
            os.close(directory)
        if path.endswith(" (deleted)") or not path.startswith(self._prefix):
            return NOWHERE
        return CgroupPlace(path.removeprefix(self._prefix) or "/", roots)

    def _made_by_root(self, directory: int, path: str) -> int:
        """How many components of a path, from the mount on, stand in directories that root alone can write to.

        Going up by "..", not by name: the names may be anything, and a rename can't lead us astray.
        """
        depth, private = path.removeprefix(self._prefix).count("/"), []
        here = os.dup(directory)
        try:
            for _ in range(depth):
                above = os.open("..", os.O_PATH | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = above
                found = os.fstat(here)
                private.append(found.st_uid == 0 and not found.st_mode & 0o022)
        finally:
            os.close(here)
        roots = 0
        while private and private.pop():
            roots += 1
        return roots


def _name(directory: int) -> str:
    """As text that a journal can carry: whoever may make a cgroup may name it in any bytes."""
    return text(os.fsencode(Path(f"/proc/self/fd/{directory}").readlink()))
