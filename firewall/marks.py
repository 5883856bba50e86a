"""What netfilter is told: a byte of the packet mark, and the same byte of the connection mark.

Law: the one place that knows the layout. The upper half of the byte is a verdict; in a connection mark the lower half
is the generation of the policy that gave it. All other bits belong to others and are left alone.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

# Bits 24-31. Lower ones are spoken for on common hosts: WireGuard's and Kubernetes' marks are in 0-15, Tailscale's in
# 16-23.
SHIFT: Final = 24
MASK: Final = 0xFF << SHIFT
OTHERS: Final = 0xFFFFFFFF ^ MASK
GENERATIONS: Final = range(1, 16)


class Mark(IntEnum):
    """A packet's state on its way through our chains."""

    JUDGE = 0x01 << SHIFT  # to be judged; whatever still has it at `enforce` was not
    ALLOW = 0x10 << SHIFT
    PEEK = 0x20 << SHIFT
    INSPECT = 0x30 << SHIFT
    DENY = 0x40 << SHIFT
    PASS = 0x50 << SHIFT  # not for judgement: what IP itself needs, or judged before


def connection_mark(verdict: Mark, generation: int) -> int:
    """A verdict that holds for a connection as long as the policy's generation does."""
    if generation not in GENERATIONS:
        raise ValueError(f"no generation: {generation}")
    return verdict | generation << SHIFT
