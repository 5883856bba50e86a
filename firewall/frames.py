"""Frames that a program hands to a device past IP (packet(7)): the hook where they can still be dropped.

Law: owns the table `netdev dnsfw` in the network namespace that is current when it is entered, and nothing else. What
came by way of IP has a route with it and was judged there; a program's frame has a socket and no route, and no mark or
address that the program may choose has a say in that. (Connection tracking would tell too, but has no word here.)
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from firewall.nft import Nft, NftError

FRAMES_TABLE: Final = "netdev dnsfw"
_RTMGRP_LINK: Final = 1  # <linux/rtnetlink.h>
_LOOPBACK: Final = 1  # its index, in every network namespace
_NOBODY: Final = 0xFFFF_FFFF  # no user's id: any packet with another one has a socket
_NAME: Final = re.compile(r"[\w.@-]+", re.ASCII)
_TRIES: Final = 5  # a device may go between being listed and being named

# No router passes these on, and links die without them: ARP, 802.1X (wpa_supplicant), LLDP. Then DHCP's first question.
# The type that counts is the frame's own: what the socket says of it (`meta protocol`) is the program's choice.
_ALLOWED: Final = (
    "meta oiftype ether ether type { arp, 0x888e, 0x88cc } accept",
    "@ll,96,16 0x0800 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
)

type Link = tuple[int, str]  # as socket.if_nameindex() gives them


def render_frames(links: Iterable[Link]) -> str:
    """nft text of the whole table, in the place of any earlier one. Raises ValueError: see `covering`."""
    program = [*_ALLOWED, "counter name framed drop"]
    rules = {"program": program, "around": ["meta rtclassid >= 0 return", f"meta skuid != {_NOBODY} goto program"]}
    lines = [f"table {FRAMES_TABLE}", f"delete table {FRAMES_TABLE}", f"table {FRAMES_TABLE} {{"]
    lines.append("  counter framed { }")
    for name, chain in rules.items():
        lines += [f"  chain {name} {{", *(f"    {rule}" for rule in chain), "  }"]
    return "\n".join([*lines, "}", *(covering(link) for link in links), ""])


def covering(link: Link) -> str:
    """nft text that puts one more device under the table's rules. Raises ValueError for a name nft has no word for."""
    index, name = link
    if not _NAME.fullmatch(name):
        raise ValueError(f"no name that nft can be told: {name!r}")
    hook = f'type filter hook egress device "{name}" priority 0; policy accept;'
    return f"table {FRAMES_TABLE} {{\n  chain egress{index} {{\n    {hook}\n    jump around\n  }}\n}}"


class Frames:
    """A context manager: no program's own frame leaves by any device that is there at the start. Raises NftError where
    the kernel has no such hook (before Linux 5.16)."""

    def __init__(self) -> None:
        self._nft: Nft | None = None

    def __enter__(self) -> Self:
        nft = Nft()
        try:
            _apply(nft)
        except BaseException:
            nft.close()
            raise
        self._nft = nft
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nft is not None:
            remove_frames(self._nft)
            self._nft.close()
            self._nft = None


def _apply(nft: Nft) -> None:
    for _ in range(_TRIES - 1):
        try:
            nft.run(render_frames(_nameable()))
        except NftError:
            continue  # a device that was listed is gone; what lasts comes out below
        return
    nft.run(render_frames(_nameable()))


def remove_frames(nft: Nft) -> None:
    """Take the table away; not there: fine. Raises NftError."""
    nft.run(f"table {FRAMES_TABLE}\ndelete table {FRAMES_TABLE}\n")


def _links() -> set[Link]:
    return {link for link in socket.if_nameindex() if link[0] != _LOOPBACK}


def _nameable() -> list[Link]:
    return sorted(link for link in _links() if _NAME.fullmatch(link[1]))


class LinkWatch:
    """Covers devices as they appear, in the network namespace that is current at construction and at every call. A
    context manager; its descriptor is readable when there is something to do."""

    def __init__(self) -> None:
        self._nft = Nft()
        self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._news.bind((0, _RTMGRP_LINK))
        self._covered: set[Link] = set()

    def fileno(self) -> int:
        return self._news.fileno()

    def update(self) -> list[Link]:
        """Cover what isn't yet; those that could not be. A device that was renamed keeps its cover, and where there is
        no table of ours (audit, an old kernel) there is nothing to do."""
        self._drain()
        if not self._has(f"table {FRAMES_TABLE}"):
            return []
        present = _links()
        left = [link for link in sorted(present - self._covered) if not self._cover(link)]
        self._covered = present
        return [link for link in left if link in _links()]  # others are gone again

    def close(self) -> None:
        self._news.close()
        self._nft.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cover(self, link: Link) -> bool:
        try:
            if not self._has(f"chain {FRAMES_TABLE} egress{link[0]}"):
                self._nft.run(covering(link))
        except (NftError, ValueError):
            return False
        return True

    def _has(self, what: str) -> bool:
        try:
            self._nft.run(f"list {what}")
        except NftError:
            return False
        return True

    def _drain(self) -> None:
        """What the news say is looked up afresh, so none of it needs reading, and lost news are news too (ENOBUFS)."""
        while True:
            try:
                self._news.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                continue
