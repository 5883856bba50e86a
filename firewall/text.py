"""nft(8) text, as our chains have it in common.

Law: pure, and of no chain in particular.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from firewall.marks import MASK, OTHERS, Mark

NOBODY: Final = 0xFFFF_FFFF  # (uid_t)-1: no user's, so a packet with any other uid came from a program's socket
PORTS: Final = "meta l4proto { tcp, udp } th"


def marked(mark: Mark) -> str:
    return f"meta mark & {MASK:#x} == {mark:#x}"


def becomes(mark: int) -> str:
    return f"meta mark set meta mark & {OTHERS:#x} | {mark:#x}"


def chain(name: str, rules: Iterable[str]) -> Iterator[str]:
    yield f"  chain {name} {{"
    yield from (f"    {rule}" for rule in rules)
    yield "  }"


def hook(name: str, where: str, default: str, rules: Iterable[str]) -> Iterator[str]:
    yield from chain(name, [f"type {where}; policy {default};", *rules])
