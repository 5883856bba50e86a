"""What netfilter is told: one byte of the packet mark, and the same byte of the connection mark.

Law: the one place that knows the layout. Three bits are a state, five the generation of the policy that gave it; all
other bits belong to others and are left alone. A packet mark never has a generation and a connection mark always has
one, so no packet mark, whoever copies it (CONNMARK --save-mark), is a connection's verdict.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

# Bits 24-31. Common hosts use lower ones: WireGuard's and Kubernetes' marks are in 0-15, Tailscale's in 16-23.
MASK: Final = 0xFF00_0000
OTHERS: Final = 0xFFFF_FFFF ^ MASK
GENERATIONS: Final = 30
STATE: Final = 0xE000_0000  # of it, the state

_STATE: Final = 29
_GENERATION: Final = 24


class Mark(IntEnum):
    """A packet's state between our chains. 0 means that `judge` has not seen it, and nothing lets it through."""

    JUDGE = 1 << _STATE  # for the queue; whatever still has it afterwards was not judged
    PASS = 2 << _STATE  # what IP itself needs, or judged before
    DNS = 3 << _STATE  # to our resolver, wherever it was sent
    ALLOW = 4 << _STATE
    PEEK = 5 << _STATE
    INSPECT = 6 << _STATE
    DENY = 7 << _STATE


def connection_mark(verdict: Mark, generation: int) -> int:
    """A verdict as a connection keeps it, valid while `generation` (a count, >= 0) is the policy's."""
    return verdict | generation_mark(generation)


def generation_mark(generation: int) -> int:
    """A connection mark without its verdict. Five bits come round after 30 reloads: a reload must have dealt with live
    connections by then. Raises ValueError for a negative count."""
    if generation < 0:
        raise ValueError(f"not a generation: {generation}")
    return (generation % GENERATIONS + 1) << _GENERATION


# A connection that came in from outside: not the policy's business, so of no policy's generation.
INBOUND: Final = connection_mark(Mark.PASS, 0)

# A connection of the engine's or the proxy's own, on a host that they live on: no policy's either, and never judged.
EXEMPT: Final = connection_mark(Mark.JUDGE, 0)

# On a packet: allowed, and its flow's next one is judged again. No generation has that number.
ONCE: Final = Mark.ALLOW | (GENERATIONS + 1) << _GENERATION

# On a packet: allowed by its client's words, which may not arrive, and come again as others.
HEARD: Final = Mark.PEEK | (GENERATIONS + 1) << _GENERATION

# The state of its connection: what carries data is judged until the server has answered. (No question is marked there.)
LISTENING: Final = Mark.DNS

# A connection that we refuse to forward, while the refusal is on its way.
TURNED: Final = connection_mark(Mark.DENY, 0)
