"""One way out, as a value.

Law: values only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

TIMED_OUT = "timed out"  # an attempt that nobody refused and nobody answered


class Answered(ValueError):  # noqa: N818 - no error of anybody's
    """A refusal in the words of the protocol, which its text names."""


@dataclass(frozen=True)
class Loot:
    """What an attempt has at hand: the token to get out, and what it found on the laptop.

    `authority` is the PEM file that the sites' certificates are verified against, `helper` the path of a Unix socket
    where a process outside the guard takes orders, `inherited` the socket descriptors that were open at our start,
    `device` the interface that leads to the internet, where that is known.
    """

    token: str
    authority: str
    helper: str
    inherited: tuple[int, ...] = ()
    device: str = ""


@dataclass(frozen=True)
class Way:
    """`attempt` sends the token and raises OSError (or ValueError, from TLS) for what the kernel told it.

    `attacks` are numbers of `dnsfw.selftest.report.SUBJECTS`. `open_because` says, to users, why this way is known to
    be open; "" where it must be closed.
    """

    id: str
    title: str
    attacks: tuple[int, ...]
    attempt: Callable[[Loot], None]
    open_because: str = ""
