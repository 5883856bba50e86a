"""The queue: packets from the kernel, a verdict for each.

Law: the only file that knows netfilterqueue. A packet starts as denied and the last statement says what it became:
errors, overflow and silence leave it denied.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from netfilterqueue import NetfilterQueue, Packet

from firewall.answers import Answer
from firewall.marks import HEARD, ONCE, OTHERS, Mark
from firewall.packet import COPIED, PacketError, parse_packet
from policy.values import Action, Flow, Proto

_WAITING: Final = 4096  # packets in the kernel; more are dropped, and counted (firewall.overflow)
# Of those, packets that may be held back: what waits there takes no other flow's place. A client's first words are a
# few segments or datagrams, a dozen with QUIC's early data.
_HELD_OF_A_FLOW: Final = 32
_HELD_IN_ALL: Final = _WAITING // 4
_SOCKET_OCTETS: Final = 8 << 20  # room for all of them, each taking about 2 KiB of the kernel's bookkeeping
_BATCH: Final = 64  # packets answered in one go, so that a flood of them doesn't starve the resolver
_SOL_NETLINK, _NETLINK_NO_ENOBUFS = 270, 5  # <linux/socket.h>, <linux/netlink.h>

# Whatever is not here is denied.
_VERDICTS: Final[dict[Action, int]] = {
    Action.ALLOW: Mark.ALLOW,
    Action.ONCE: ONCE,
    Action.PEEK: Mark.PEEK,
    Action.INSPECT: Mark.INSPECT,
}

type Judge = Callable[[Flow, bytes], Answer]
type Fault = Callable[[BaseException, bytes], None]
type Malformed = Callable[[PacketError, bytes], None]


class Queue:
    """Queue `number` of the network namespace that is current at construction, as a context manager.

    `judge` decides on a flow's packet; `malformed` is told of packets that can't be read, `fault` of exceptions out of
    `judge`: both are denied. Raises OSError where the queue is taken or we lack CAP_NET_ADMIN. Overflow denies.
    """

    def __init__(self, number: int, judge: Judge, fault: Fault, malformed: Malformed) -> None:
        self._judge = judge
        self._fault = fault
        self._malformed = malformed
        self._held: dict[Flow, list[Packet]] = {}
        self._holding = 0
        self._netlink = NetfilterQueue()
        self._netlink.bind(number, self._take, max_len=_WAITING, range=COPIED, sock_len=_SOCKET_OCTETS)
        # An overflow would otherwise stop the kernel from queueing until the socket is empty (netlink(7)).
        with socket.socket(fileno=os.dup(self.fileno())) as same:
            same.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
            same.settimeout(0)

    def fileno(self) -> int:
        """Readable when packets are waiting."""
        return self._netlink.get_fd()

    def drain(self) -> None:
        """Answer some of what is waiting, without blocking; the descriptor stays readable while there is more."""
        # Of a socket, the library wants recv() alone; it stops at EAGAIN.
        self._netlink.run_socket(_Batch(self.fileno()))  # type: ignore[arg-type]  # typed as a whole socket

    def release(self, flow: Flow, action: Action) -> None:
        """Answer the packets of this flow that were held back, in the order in which they came."""
        self._release(flow, _VERDICTS.get(action, Mark.DENY))

    def _release(self, flow: Flow, mark: int) -> None:
        held = self._held.pop(flow, [])
        self._holding -= len(held)
        for packet in held:
            _give(packet, mark)

    def close(self) -> None:
        """From now on the kernel drops what would be queued, and what is waiting. May be called twice."""
        self._held.clear()
        self._holding = 0
        self._netlink.unbind()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, packet: Packet) -> None:
        """Whatever comes out of the reports, the kernel gets its answer."""
        mark: int | None = Mark.DENY
        try:
            mark = self._verdict(packet)
        finally:
            if mark is not None:
                _give(packet, mark)

    def _verdict(self, packet: Packet) -> int | None:
        """None where it is held back."""
        data = packet.get_payload()
        try:
            flow = parse_packet(data)
            answer = self._judge(flow, data)
            if answer.instead is not None:
                packet.set_payload(answer.instead)
            elif flow.proto == Proto.UDP and len(data) < COPIED:
                # What leaves is what was judged: without a checksum, the kernel's packet may still be made of its
                # sender's own memory (splice(2)). Where there is one, the kernel has copied all of it to sum it up.
                packet.set_payload(data)
            if answer.action is None:
                self._hold(flow, packet)
                return None
            if self._held:
                self._release(flow, Mark.DENY if answer.fresh else _mark(answer))
            return _mark(answer)
        except PacketError as error:
            self._malformed(error, data)
        except Exception as error:  # noqa: BLE001 - the one boundary: this packet is denied, the guard lives on
            self._fault(error, data)
        return Mark.DENY

    def _hold(self, flow: Flow, packet: Packet) -> None:
        """Raises PacketError where too many are."""
        if self._holding >= _HELD_IN_ALL or len(self._held.get(flow, ())) >= _HELD_OF_A_FLOW:
            raise PacketError("too many packets wait for what their clients have to say")
        self._held.setdefault(flow, []).append(packet)
        self._holding += 1


def _mark(answer: Answer) -> int:
    if answer.unproven and answer.action is Action.ALLOW:
        return HEARD
    return _VERDICTS.get(answer.action or Action.DENY, Mark.DENY)


def _give(packet: Packet, mark: int) -> None:
    """Accepted with a mark in any case: `enforce` refuses a denied one so that its sender notices at once."""
    packet.set_mark(packet.get_mark() & OTHERS | mark)
    packet.accept()


class _Batch:
    """As much of a socket as run_socket() uses: some messages, then as if there were no more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._left = _BATCH

    def recv(self, size: int) -> bytes:
        if self._left == 0:
            raise BlockingIOError(errno.EAGAIN, "enough for now")
        self._left -= 1
        return os.read(self._descriptor, size)
