"""TCP connections whose clients must say which host they want before their words go out.

Law: sans-IO: packets and the time in, answers out; whoever judges is a callable. Every table is bounded and every entry
expires. What can't be read, doesn't come in time or finds no room is denied, and the judge hears of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Final, NamedTuple

from firewall.answers import Answer, Held, Judge
from firewall.firstwords import Words, WordsError, read_words
from firewall.opening import Opening, OpeningError
from firewall.segment import Segment, read_segment, without_data
from firewall.timed import Timed
from policy.values import Action, Flow, Seen

_MOST_SILENT: Final = 16_384  # connections that are open, and whose client has not been understood yet
_MOST_JUDGED: Final = 4_096  # those whose packets may have been on their way when their client was judged
_MOST_HELD: Final = 128  # those with packets in the kernel's queue: some each, as many as go unacknowledged
_SILENCE: Final = 600.0  # seconds; where the server speaks first, a person may be typing
_ON_THEIR_WAY: Final = 60.0  # seconds
_WHOLE_WITHIN: Final = 10.0  # seconds from the first octet to the last that is needed
# Seconds that a packet is held back for the rest of what it begins. Longer would be no use: a client may wait for an
# acknowledgement before it goes on (RFC 896).
_PATIENCE: Final = 0.1


class _Silent[C]:
    """A connection whose client has yet to be understood. `first` is its first octet's sequence number, `said` what has
    come from there without a gap, `until` when that must be whole."""

    __slots__ = ("case", "opening", "said", "until")

    def __init__(self, case: C, first: int) -> None:
        self.case = case
        self.opening = Opening(first)
        self.said = b""
        self.until = inf


class _Judged[C](NamedTuple):
    """What the client said, and what came of it under the policy `era`. `seen` is None where it could not be read."""

    case: C
    seen: Seen | None
    action: Action
    era: object


class Connections[C]:
    """Answers for every packet of TCP that the queue brings."""

    def __init__(self, judge: Judge[C]) -> None:
        self.held = Held(_MOST_HELD, _PATIENCE)
        self._judge = judge
        self._silent: Timed[Flow, _Silent[C]] = Timed(_MOST_SILENT, _SILENCE)
        self._judged: Timed[Flow, _Judged[C]] = Timed(_MOST_JUDGED, _ON_THEIR_WAY)

    @property
    def evicted(self) -> int:
        """Connections forgotten for want of room; their clients' next words are denied."""
        return self._silent.evicted

    def answer(self, flow: Flow, packet: bytes, now: float) -> Answer:
        """Of a packet that gave this flow."""
        segment = read_segment(packet)
        if segment.opens:
            return self._open(flow, segment, packet, now)
        judged = self._judged.get(flow, now)
        if judged is not None:
            return Answer(self._again(flow, judged, now), open=True)
        silent = self._silent.get(flow, now)
        if silent is None:
            return Answer(self._judge.again(flow), open=True)
        return Answer(self._listen(flow, silent, segment, now), open=True)

    def overdue(self, now: float) -> Iterator[tuple[Flow, Action]]:
        """What becomes of packets that were held long enough: they go on if nothing in them would be denied."""
        for flow in self.held.overdue(now):
            silent = self._silent.get(flow, now)
            yield flow, Action.DENY if silent is None else self._go_on(flow, silent, now)

    def _open(self, flow: Flow, segment: Segment, packet: bytes, now: float) -> Answer:
        self._judged.pop(flow)
        self.held.pop(flow)
        action, case = self._judge.open(flow)
        if action is not Action.PEEK:
            self._silent.pop(flow)
            return Answer(action)
        self._silent.put(flow, _Silent(case, segment.sequence + 1), now)
        # Data in a SYN would arrive before it could be judged. The server doesn't acknowledge what it didn't get.
        return Answer(Action.PEEK, without_data(packet) if segment.data or segment.cut else None)

    def _again(self, flow: Flow, judged: _Judged[C], now: float) -> Action:
        """Of a connection that was judged: a packet that was on its way, or one under another policy."""
        if judged.era is self._judge.era() or judged.seen is None:
            return judged.action
        return self._settle(flow, judged.case, judged.seen, now)

    def _listen(self, flow: Flow, silent: _Silent[C], segment: Segment, now: float) -> Action | None:
        if not segment.data:
            return None if flow in self.held else Action.PEEK
        try:
            words = self._words(flow, silent, segment, now)
        except (OpeningError, WordsError) as error:
            action = self._judge.unread(silent.case, str(error))
            return self._record(flow, _Judged(silent.case, None, action, self._judge.era()), now)
        if words.whole:
            return self._settle(flow, silent.case, words.seen, now)
        if words.held:
            self.held.add(flow, now)
            return None
        self.held.pop(flow)
        return Action.PEEK

    def _words(self, flow: Flow, silent: _Silent[C], segment: Segment, now: float) -> Words:
        """All so far. Raises OpeningError and WordsError."""
        silent.said = silent.opening.add(segment.sequence, segment.data)
        words = read_words(silent.said, flow.dport)
        if words.whole:
            return words
        if words.held:
            silent.until = min(silent.until, now + _WHOLE_WITHIN)
        if segment.cut:
            raise WordsError("its first words don't fit a packet that can be looked at")
        if words.held and now > silent.until:
            raise WordsError("its first words were not whole in time")
        if words.held and flow not in self.held and self.held.full:
            raise WordsError("too many connections wait for their first words")
        return words

    def _go_on(self, flow: Flow, silent: _Silent[C], now: float) -> Action:
        """The rest is not there. What is goes on, but with a name that would be denied in it."""
        seen = read_words(silent.said, flow.dport).seen
        if seen.name is not None and not self._judge.hinted(silent.case, seen):
            return self._settle(flow, silent.case, seen, now)
        return Action.PEEK

    def _settle(self, flow: Flow, case: C, seen: Seen, now: float) -> Action:
        return self._record(flow, _Judged(case, seen, self._judge.named(case, seen), self._judge.era()), now)

    def _record(self, flow: Flow, judged: _Judged[C], now: float) -> Action:
        self._silent.pop(flow)
        self.held.pop(flow)
        self._judged.put(flow, judged, now)
        return judged.action
