"""All that a policy was made of when it was read, and how it travels.

Law: values and their bytes in anonymous memory (memfd_create(2)). An engine that comes after another one parses what
is pinned here: whatever became of the files since, the policy in force stays what it was.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec


class Taken(NamedTuple):
    """What stood behind an `@include` or `@registry`."""

    verb: str
    name: str
    file: str
    text: bytes


class Pinned(msgspec.Struct, frozen=True, tag=True):
    """`path` is the policy's file as its messages call it, "" for the empty policy; `file` is the same from the
    root. `users` are the user ids that names stood for."""

    path: str = ""
    file: str = ""
    text: bytes = b""
    taken: tuple[Taken, ...] = ()
    users: dict[str, int] = {}
    placeholders: dict[str, str] = {}

    def files(self) -> dict[Path, bytes]:
        """The policy's own file and those beside it that it includes, as they were; none for the empty policy."""
        if not self.file:
            return {}
        folder = Path(self.file).parent
        beside = (taken for taken in self.taken if taken.verb == "include" and not taken.file.startswith("@"))
        return {Path(self.file): self.text, **{folder / taken.name: taken.text for taken in beside}}

    @property
    def sha256(self) -> str:
        """Of all that was read, in hex: the policy's own text and what it took in, in order, as `cat … | sha256sum`."""
        return sha256(self.text + b"".join(taken.text for taken in self.taken)).hexdigest()

    def load(self, verb: str, name: str) -> tuple[str, bytes]:
        """What a policy's `load` gave. Raises LookupError."""
        for taken in self.taken:
            if (taken.verb, taken.name) == (verb, name):
                return taken.file, taken.text
        raise LookupError(f"{name} was not pinned")


class Unfit(msgspec.Struct, frozen=True, tag=True):
    """What was read can't be a policy: all its mistakes, and what to do."""

    problem: str
    remedy: str


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Pinned | Unfit] = msgspec.msgpack.Decoder(Pinned | Unfit)


def paper() -> int:
    """Anonymous memory to write on: a descriptor, its receiver's to close."""
    return os.memfd_create("dnsfw-policy")


def write(value: Pinned | Unfit, paper: int) -> None:
    """Raises OSError."""
    left = memoryview(_encoder.encode(value))
    while left:
        left = left[os.write(paper, left) :]


def read(paper: int) -> Pinned | Unfit:
    """What was written. Raises ValueError for anything else."""
    with open(os.dup(paper), "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.seek(0)
        return _decoder.decode(file.read())
