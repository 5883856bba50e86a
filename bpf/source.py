"""What attribution is to the rest: one interface, whichever way owners are found.

Law: the interface and its small values; nothing here finds an owner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from bpf.container import Container
from policy.values import Flow, Owner


@dataclass(frozen=True, slots=True)
class Description:
    """What a container's engine says of it: its image, as it was asked for, and its name."""

    image: str
    name: str


# None while it isn't known. Never waits.
type DescriptionOf = Callable[[Container], Description | None]


def undescribed(_container: Container) -> Description | None:
    """Nobody is asked."""
    return None


class Attribution(StrEnum):
    """Where owners come from: recorded by the kernel as each packet was sent, or as a socket was used; or searched for
    in /proc afterwards."""

    SENDERS = "BPF on packets as they are sent"
    SOCKETS = "BPF on the cgroup's sockets"
    PROC = "sock_diag and /proc"


class OwnerSource(Protocol):
    """`of` names the process behind a flow, None if that can't be said for sure; it never raises. `counts` says how
    many look-ups ended how, `evicted` what bounded tables lost (not for the path of a packet)."""

    attribution: Attribution
    counts: Counter[str]

    def of(self, flow: Flow) -> Owner | None: ...

    def evicted(self) -> dict[str, int]: ...
