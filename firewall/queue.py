"""The queue: packets from the kernel, a verdict for each.

Law: the only file that knows netfilterqueue. A packet starts as denied; the last statement says what it became.
Overflow, and everything that breaks, leaves it denied.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from netfilterqueue import NetfilterQueue

from firewall.marks import OTHERS, Mark
from firewall.packet import PacketError, parse_packet
from policy.values import Action, Flow

_COPIED = 256  # octets of each packet: all headers that `packet` reads
_LENGTH = 8192  # packets waiting in the kernel; those over it are dropped
_SOCKET_BYTES = 8 << 20

_VERDICTS = {Action.ALLOW: Mark.ALLOW}  # PEEK and INSPECT need what isn't built yet: denied

type Judge = Callable[[Flow], Action]
type Fault = Callable[[Exception, bytes], None]
type Malformed = Callable[[PacketError, bytes], None]


class Queue:
    """Queue `number` of the network namespace that is current at construction. Raises OSError where it is taken."""

    def __init__(self, number: int, judge: Judge, fault: Fault, malformed: Malformed) -> None:
        self._judge = judge
        self._fault = fault
        self._malformed = malformed
        self._netlink: Any = NetfilterQueue()
        self._netlink.bind(number, self._answer, max_len=_LENGTH, range=_COPIED, sock_len=_SOCKET_BYTES)

    def fileno(self) -> int:
        """Readable when packets are waiting."""
        return int(self._netlink.get_fd())

    def drain(self) -> None:
        """Answer what is waiting, without blocking."""
        self._netlink.run(block=False)

    def close(self) -> None:
        """From now on the kernel drops what would be queued."""
        self._netlink.unbind()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, packet: Any) -> None:
        """Accepted with a mark in either case: `enforce` refuses a denied packet faster than a drop would."""
        mark = Mark.DENY
        data = packet.get_payload()
        try:
            mark = _VERDICTS.get(self._judge(parse_packet(data)), Mark.DENY)
        except PacketError as error:
            self._malformed(error, data)
        except Exception as error:  # noqa: BLE001 - the boundary: this packet is denied, the guard lives on
            self._fault(error, data)
        packet.set_mark(packet.get_mark() & OTHERS | mark)
        packet.accept()
