"""Chance: what a forger would have to guess, from the kernel.

Law: octets of getrandom(2) and nothing else, each given out once. They are fetched by the block: a system call for each
question costs as much as writing the question down. One for one process: a forked copy would say the same again.
"""

from __future__ import annotations

import secrets
from typing import Final

_BLOCK: Final = 4096  # octets; a question takes two more than its name has


class Chance:
    """So many random bits as a number, whenever asked: a `cookies.Bits`."""

    def __init__(self) -> None:
        self._block, self._at = b"", 0

    def __call__(self, bits: int) -> int:
        size = -(-bits // 8)
        if self._at + size > len(self._block):
            self._block, self._at = secrets.token_bytes(max(size, _BLOCK)), 0
        start, self._at = self._at, self._at + size
        return int.from_bytes(self._block[start : self._at]) >> -bits % 8
