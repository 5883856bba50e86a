"""Packets and their answers: the queue, what waits in it, and the gate that decides.

Law: composition only. Born as root in the guarded network namespace, where its sockets stay; serves in the engine's
event loop.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from dnsfw.engine.gate import Connection, Gate
from dnsfw.engine.storms import Storms
from firewall.answers import Answer
from firewall.packet import PacketError, parse_packet
from firewall.peeks import Peeks
from firewall.queue import Queue
from firewall.resets import Resets
from policy import Action, Flow


class Packets:
    """A context manager. Raises OSError where the queue is taken or we lack a capability."""

    _gate: Gate
    _peeks: Peeks[Connection]
    _loop: AbstractEventLoop
    _storms: Storms

    def __init__(self, number: int) -> None:
        self._timer: TimerHandle | None = None
        with ExitStack() as stack:
            self._resets = stack.enter_context(Resets())
            self._queue = stack.enter_context(Queue(number, self._judge, self._fault, self._malformed))
            self._stack = stack.pop_all()

    def serve(self, loop: AbstractEventLoop, gate: Gate, storms: Storms) -> None:
        """Answer what is queued, from now on."""
        self._loop, self._gate, self._peeks, self._storms = loop, gate, Peeks(gate), storms
        loop.add_reader(self._queue.fileno(), self._drain)

    def rest(self) -> None:
        """No more answers: what is queued waits."""
        self._loop.remove_reader(self._queue.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._storms.end()

    def trouble(self) -> list[str]:
        """Sentences about what could not be judged as it should."""
        forgotten = self._peeks.evicted
        said = [f"{forgotten} open connections forgotten before their clients had spoken"] if forgotten else []
        return [*self._storms.trouble(), *said]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _drain(self) -> None:
        self._queue.drain()
        self._storms.expect(self._loop)
        self._wake_up()

    def _wake_up(self) -> None:
        due = self._peeks.due()
        if due is not None and self._timer is None:
            self._timer = self._loop.call_at(due, self._release)

    def _release(self) -> None:
        """Of packets that were held for long enough."""
        self._timer = None
        for flow, answer in self._peeks.overdue(self._loop.time()):
            self._tell(answer)
            self._queue.release(flow, answer.action or Action.DENY)
        self._wake_up()

    def _judge(self, flow: Flow, packet: bytes) -> Answer:
        answer = self._peeks.answer(flow, packet, self._loop.time())
        self._tell(answer)
        return answer

    def _tell(self, answer: Answer) -> None:
        if answer.reset is not None:
            self._resets.send(answer.reset)

    def _fault(self, error: BaseException, packet: bytes) -> None:
        """The queue's boundary: what broke was the judgement, so the packet can still be read."""
        try:
            flow = parse_packet(packet)
        except PacketError:
            flow = None
        self._gate.fault(error, flow)

    def _malformed(self, error: PacketError, _packet: bytes) -> None:
        self._gate.unreadable(error)
