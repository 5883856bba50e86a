"""UDP flows whose clients must say which host they want before their words go out.

Law: as for connections. Of QUIC every packet that may begin a connection comes here, whatever was allowed before it on
the same flow; another protocol's datagrams name no host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from firewall.answers import Answer, Held, Judge
from firewall.clienthello import ClientHelloError
from firewall.opening import OpeningError
from firewall.packet import parse_header
from firewall.quic import Greetings, QuicError, looks_like_quic
from firewall.timed import Timed
from policy.values import Action, Flow, Seen, Spoken

_HEADER: Final = 8  # octets (RFC 768)
_MOST_QUIC: Final = 4_096  # flows
_MOST_HELD: Final = 128  # flows
_MOST_EACH: Final = 24  # datagrams; all together, fewer than the kernel's queue takes
_IDLE: Final = 180.0  # seconds; conntrack's own time-out for an assured UDP flow
_PATIENCE: Final = 0.5  # seconds for the rest of a hello that takes several datagrams, sent at once
_OTHER: Final = Seen(Spoken.OTHER, None)


class _Quic:
    """A flow on which QUIC is spoken: `seen` is the last name that was asked for, `waiting` the datagrams that wait."""

    __slots__ = ("greetings", "seen", "waiting")

    def __init__(self) -> None:
        self.greetings = Greetings()
        self.seen = _OTHER
        self.waiting = 0


class Datagrams[C]:
    """Answers for every packet of UDP that the queue brings. So many `flows` on which QUIC is spoken are known."""

    def __init__(self, judge: Judge[C], flows: int = _MOST_QUIC) -> None:
        self.held: Held[Flow] = Held(_MOST_HELD, _PATIENCE)
        self._judge = judge
        self._quic: Timed[Flow, _Quic] = Timed(flows, _IDLE)

    def answer(self, flow: Flow, packet: bytes, now: float) -> Action | None:
        """Of a packet that gave this flow; None holds it back."""
        action, case = self._judge.open(flow)
        if action is not Action.PEEK:
            return action
        header = parse_header(packet)
        data = packet[header.start + _HEADER : header.total]
        known = self._quic.get(flow, now)
        if known is None and flow in self.held:
            return self._deny(flow, case, "what it said first was forgotten for want of room")
        if not looks_like_quic(data, flow.dport):
            if known is not None and known.waiting:  # an answer would be for all that waits
                return self._wait(flow, known, case, now)
            return self._judge.named(case, _OTHER if known is None else known.seen)
        if len(packet) < header.total:
            return self._deny(flow, case, "a datagram that is too long to be looked at")
        if known is None:
            known = _Quic()
            self._quic.put(flow, known, now)
        return self._hear(flow, known, data, case, now)

    def overdue(self, now: float) -> Iterator[tuple[Flow, Answer]]:
        """What becomes of packets that were held long enough."""
        for flow in self.held.overdue(now):
            self._quic.pop(flow)
            action, case = self._judge.open(flow)
            if action is Action.PEEK:
                action = self._deny(flow, case, "its hello was not whole in time")
            yield flow, Answer(action)

    def _hear(self, flow: Flow, known: _Quic, data: bytes, case: C, now: float) -> Action | None:
        try:
            hellos = known.greetings.add(data)
        except (QuicError, ClientHelloError, OpeningError) as error:
            return self._deny(flow, case, str(error))
        if hellos is None:
            return self._wait(flow, known, case, now)
        self.held.pop(flow)
        known.waiting = 0
        action: Action | None = None
        for hello in hellos:
            known.seen = Seen(Spoken.QUIC, hello.name)
            action = self._judge.named(case, known.seen)
            if action is Action.DENY:
                self._quic.pop(flow)
                return action
        return action or self._judge.named(case, known.seen)

    def _wait(self, flow: Flow, known: _Quic, case: C, now: float) -> Action | None:
        if self.held.full and flow not in self.held:
            return self._deny(flow, case, "too many flows wait for the rest of their hellos")
        known.waiting += 1
        if known.waiting > _MOST_EACH:
            return self._deny(flow, case, "too many datagrams wait for the rest of a hello")
        self.held.add(flow, now)
        return None

    def _deny(self, flow: Flow, case: C, problem: str) -> Action:
        self._quic.pop(flow)
        self.held.pop(flow)
        return self._judge.unread(case, problem)
