"""The kernel's list of live connections: read, marked anew, forgotten.

Law: a ctnetlink socket, which sees the network namespace that it was made in, for ever; its messages stand in
`ctnetlink`. Orders go in batches, since a system call each would be most of their cost.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from itertools import batched
from types import TracebackType
from typing import Final, Self

from firewall import ctnetlink
from firewall.ctnetlink import Reader, Tracked
from policy.values import Flow, Proto

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10  # <linux/socket.h>, <linux/netlink.h>
_BUFFER: Final = 1 << 16
_BATCH: Final = 128  # orders at once; the socket has room for that many refusals


class Conntrack:
    """A ctnetlink socket in the network namespace that is current at construction, as a context manager.

    Wants CAP_NET_ADMIN. Every method raises OSError where the kernel can't be asked.
    """

    def __init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._netlink.bind((0, 0))
        self._netlink.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)  # a refusal doesn't repeat its order
        self._reader = Reader()
        self._sequence = 0

    def marked(self, mark: int, mask: int) -> Iterator[list[Tracked]]:
        """All connections whose mark has the value `mark` under `mask`, some at a time. One that comes or goes
        meanwhile may be missing. The list must be read to its end before anything else is asked."""
        flags = ctnetlink.REQUEST | ctnetlink.DUMP
        self._netlink.send(ctnetlink.message(ctnetlink.GET, flags, self._next(), ctnetlink.wanted(mark, mask)))
        ended = False
        while not ended:
            some = []
            # The kernel answers inside send() and recv(), so this never waits: a lost answer is an error, not a hang.
            datagram = self._netlink.recv(_BUFFER, socket.MSG_DONTWAIT)
            for kind, sequence, at, end in ctnetlink.messages(datagram):
                if sequence != self._sequence:
                    continue
                if kind in (ctnetlink.DONE, ctnetlink.ERROR):
                    ctnetlink.raise_if_failed(datagram, at)
                    ended = True
                    break
                some.append(self._reader.tracked(datagram[at:end]))
            # Kernels filter since 3.8 and may still say more than was asked for.
            yield [one for one in some if one.mark & mask == mark]

    def connections(self) -> tuple[Flow, ...]:
        """All of TCP and UDP that live now."""
        every = (one.flow for some in self.marked(0, 0) for one in some)
        return tuple(flow for flow in every if flow.proto in (Proto.TCP, Proto.UDP))

    def flip(self, some: Iterable[Tracked], bits: int) -> None:
        """Turn these bits of their marks over; what is gone is left alone. Whatever a mark has become since it was
        read, and a new connection in an old one's place, keeps its other bits."""
        self._tell(ctnetlink.NEW, some, ctnetlink.flipped(bits))

    def forget(self, some: Iterable[Tracked]) -> None:
        """Their next packets are strangers'. What is gone, or another connection by now, is left alone."""
        self._tell(ctnetlink.DELETE, some, b"")

    def close(self) -> None:
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell(self, what: int, some: Iterable[Tracked], more: bytes) -> None:
        for batch in batched(some, _BATCH):
            sequence = self._next()
            self._netlink.send(b"".join(ctnetlink.order(what, sequence, tracked, more) for tracked in batch))
            self._hear()

    def _hear(self) -> None:
        """What was refused."""
        while True:
            try:
                datagram = self._netlink.recv(_BUFFER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            for kind, sequence, at, _ in ctnetlink.messages(datagram):
                if kind == ctnetlink.ERROR and sequence == self._sequence:
                    ctnetlink.raise_if_failed(datagram, at)

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return self._sequence
