"""What a container engine is to those who ask it: somebody of root's behind a Unix socket, with two sentences to say.

Law: what every engine has in common, whatever it speaks; nothing here knows a protocol.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PATIENCE = 2.0  # seconds for one answer
LARGEST = 1 << 22  # octets of one answer
ROOT = 0
_CREDENTIALS = struct.Struct("=3i")  # struct ucred: pid, uid, gid


class UnansweredError(Exception):
    """The engine isn't there, isn't root's, or says nothing that could be understood."""


@dataclass(frozen=True, slots=True)
class Named:
    """A container by its full id."""

    id: str
    image: str
    name: str


class Engine(Protocol):
    """`kinds` are what its containers' cgroups are named after; `streams` says whether it tells of containers as they
    are made. Both calls block, at most `PATIENCE` for an answer."""

    @property
    def kinds(self) -> frozenset[str]: ...

    @property
    def streams(self) -> bool: ...

    def inspect(self, container: str) -> Named:
        """Raises UnansweredError, also for a container that it doesn't know."""

    def made(self) -> Iterator[Named]:
        """Those that there are, then all others as they are made, before they run; ends when the engine does. Raises
        UnansweredError, OSError."""


def connect(unix: socket.socket, path: Path, owner: int, patience: float) -> None:
    """To the socket of an engine whose answers count: `owner` runs it. Each thing done with it may take `patience`
    seconds. Raises OSError."""
    unix.settimeout(patience)
    unix.connect(str(path))
    raw = unix.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    if _CREDENTIALS.unpack(raw)[1] != owner:
        raise OSError(f"{path} is not root's")


def named(container: str, image: str, name: str) -> Named:
    """Raises UnansweredError for a container without an image, which satisfies no rule."""
    if not image:
        raise UnansweredError("a container without an image")
    return Named(container, image, name)
