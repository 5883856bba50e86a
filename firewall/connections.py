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
from firewall.segment import NUMBERS, RST, URG, Segment, read_segment, reset, without_data
from firewall.timed import Timed
from policy.values import Action, Flow, Seen

_MOST_SILENT: Final = 8_192  # connections that are open, and whose client has not been understood yet
_MOST_BEGUN: Final = 512  # those of them that have said something, some 32 KiB each at most
_MOST_JUDGED: Final = 4_096  # those whose packets may have been on their way when their client was judged
_MOST_HELD: Final = 128  # those with packets in the kernel's queue: some each, as many as go unacknowledged
_SILENCE: Final = 600.0  # seconds; where the server speaks first, a person may be typing
_ON_THEIR_WAY: Final = 60.0  # seconds
_MOST_HEARD: Final = 1_024  # those whose server has yet to answer what was judged, 16 KiB each at most
_REPEATED: Final = 180.0  # seconds; a segment that isn't acknowledged comes again within 120 (TCP_RTO_MAX)
# Octets behind what was judged that no client sends before it was acknowledged: many times the first window (RFC 6928).
_PAST: Final = 1 << 20
_WHOLE_WITHIN: Final = 10.0  # seconds from the first octet to the last that is needed
# Seconds that a packet is held back for the rest of what it begins. Longer would be no use: a client may wait for an
# acknowledgement before it goes on (RFC 896).
_PATIENCE: Final = 0.1


class _Known[C](NamedTuple):
    """A connection that was opened. `ends` are its key here (Segment)."""

    ends: bytes
    flow: Flow
    case: C


class _Silent[C]:
    """One whose client has yet to be understood. `first` is its first octet's sequence number, `said` what has come
    from there without a gap, `until` when that must be whole; `last` is a packet that is held, and `passed` how many
    octets were not."""

    __slots__ = ("first", "known", "last", "opening", "passed", "said", "until")

    def __init__(self, known: _Known[C], first: int) -> None:
        self.known = known
        self.first = first
        self.opening = Opening(first)
        self.last = b""
        self.passed = 0
        self.said = b""
        self.until = inf


class _Judged[C](NamedTuple):
    """What the client said, and what came of it under the policy `era`. `seen` is None where it could not be read."""

    known: _Known[C]
    seen: Seen | None
    action: Action
    era: object


class _Heard[C](NamedTuple):
    """Words that were let through, from `first` on, and what of its server's their client had `acknowledged` by then.

    They may be lost, and come again as something else: what a client sends can stay its own memory until it is
    acknowledged (sendfile(2), MSG_ZEROCOPY), and it may choose how far it gets (IP_TTL).
    """

    judged: _Judged[C]
    first: int
    said: bytes
    acknowledged: int

    def arrived(self, segment: Segment) -> bool:
        """Has the server answered them, or could this be sent only behind them?"""
        answered = (segment.acknowledged - self.acknowledged) % NUMBERS
        return 0 < answered < NUMBERS // 2 or _PAST <= (segment.sequence - self.first) % NUMBERS < NUMBERS // 2

    def differs(self, segment: Segment) -> bool:
        """Is something else said in their place?"""
        start = (segment.sequence - self.first) % NUMBERS
        data = segment.data
        if start >= NUMBERS // 2:  # from before the first octet
            data, start = data[NUMBERS - start :], 0
        said = self.said[start:] if segment.cut else self.said[start : start + len(data)]
        return data[: len(said)] != said


class Connections[C]:
    """Answers for every packet of TCP that the queue brings."""

    def __init__(self, judge: Judge[C]) -> None:
        self.held: Held[bytes] = Held(_MOST_HELD, _PATIENCE)
        self._judge = judge
        self._silent: Timed[bytes, _Silent[C]] = Timed(_MOST_SILENT, _SILENCE)
        self._begun: Timed[bytes, _Silent[C]] = Timed(_MOST_BEGUN, _SILENCE)
        self._judged: Timed[bytes, _Judged[C]] = Timed(_MOST_JUDGED, _ON_THEIR_WAY)
        self._heard: Timed[bytes, _Heard[C]] = Timed(_MOST_HEARD, _REPEATED)
        self._doubtful = -inf  # until then, one that is unknown may have been forgotten for want of room

    @property
    def evicted(self) -> int:
        """Connections forgotten for want of room; their clients' next words are denied."""
        return self._silent.evicted + self._begun.evicted

    def answer(self, flow: Flow, packet: bytes, now: float) -> Answer:
        """Of a packet that gave this flow."""
        segment = read_segment(packet)
        if segment.opens:
            return self._open(flow, segment, packet, now)
        heard = self._heard.get(segment.ends, now)
        if heard is not None:
            return self._compare(heard, segment, packet, now)
        judged = self._judged.get(segment.ends, now)
        if judged is not None and judged.era is self._judge.era():
            return Answer(judged.action)  # it was on its way
        silent = self._begun.get(segment.ends, now) or self._silent.get(segment.ends, now)
        if silent is None:
            action = self._unknown(flow, now) if judged is None else self._again(judged, now)
            # Nobody is told twice: what we send comes here, too.
            return Answer(action) if segment.flags & RST else _answer(action, packet, segment.sequence)
        silent.last = packet
        answer = _answer(self._listen(silent, segment, now), packet, silent.first + silent.passed)
        return answer._replace(unproven=True) if answer.action is Action.ALLOW else answer

    def overdue(self, now: float) -> Iterator[tuple[Flow, Answer]]:
        """What becomes of packets that were held long enough: they go on if nothing in them would be denied."""
        for ends in self.held.overdue(now):
            silent = self._begun.get(ends, now)
            if silent is not None:  # it was used when it began to wait, and is not the first to be forgotten
                action = self._go_on(silent, now)
                yield silent.known.flow, _answer(action, silent.last, silent.first + silent.passed)

    def _open(self, flow: Flow, segment: Segment, packet: bytes, now: float) -> Answer:
        ends = segment.ends
        for table in (self._judged, self._silent, self._begun, self._heard, self.held):
            table.pop(ends)
        action, case = self._judge.open(flow)
        if action is not Action.PEEK:
            return Answer(action, fresh=True)
        self._silent.put(ends, _Silent(_Known(ends, flow, case), segment.sequence + 1), now)
        # Data in a SYN would arrive before it could be judged. The server doesn't acknowledge what it didn't get.
        instead = without_data(packet) if segment.data or segment.cut else None
        return Answer(Action.PEEK, instead, fresh=True)

    def _unknown(self, flow: Flow, now: float) -> Action:
        """Of one that was let through by nobody knows what words."""
        if now >= self._doubtful:
            return self._judge.again(flow)
        action, case = self._judge.open(flow)
        if action in (Action.ALLOW, Action.DENY):
            return action
        return self._judge.unread(case, "its first words are forgotten: too many connections were begun since")

    def _again(self, judged: _Judged[C], now: float) -> Action:
        """Of a connection that another policy judged."""
        return judged.action if judged.seen is None else self._settle(judged.known, judged.seen, now)

    def _listen(self, silent: _Silent[C], segment: Segment, now: float) -> Action | None:
        known = silent.known
        if not segment.data:
            return None if known.ends in self.held else Action.PEEK
        try:
            words = self._words(silent, segment, now)
        except (OpeningError, WordsError) as error:
            action = self._judge.unread(known.case, str(error))
            return self._record(_Judged(known, None, action, self._judge.era()), now)
        if words.whole:
            action = self._settle(known, words.seen, now)
            if action is Action.ALLOW:
                judged = _Judged(known, words.seen, action, self._judge.era())
                self._remember(_Heard(judged, silent.first, silent.said, segment.acknowledged), now)
            return action
        self._silent.pop(known.ends)
        self._begun.put(known.ends, silent, now)
        if words.held:
            self.held.add(known.ends, now)
            return None
        self.held.pop(known.ends)
        return _let_pass(silent)

    def _remember(self, heard: _Heard[C], now: float) -> None:
        gone = self._heard.put(heard.judged.known.ends, heard, now)
        if gone is not None:
            self._judged.pop(gone.judged.known.ends)
            self._doubtful = now + _REPEATED

    def _compare(self, heard: _Heard[C], segment: Segment, packet: bytes, now: float) -> Answer:
        """Of a connection whose words were let through, and may not have arrived."""
        judged, ends = heard.judged, segment.ends
        if heard.differs(segment):
            self._heard.pop(ends)
            action = self._judge.unread(judged.known.case, "other words in the place of those that were judged")
            self._record(_Judged(judged.known, None, action, self._judge.era()), now)
            return _answer(action, packet, heard.first)
        action = judged.action
        if judged.era is not self._judge.era():
            action = self._again(judged, now)
            self._heard.put(ends, heard._replace(judged=judged._replace(era=self._judge.era())), now)
        if heard.arrived(segment) or action is not Action.ALLOW:
            self._heard.pop(ends)
            return _answer(action, packet, segment.sequence)
        return Answer(action, unproven=True)

    def _words(self, silent: _Silent[C], segment: Segment, now: float) -> Words:
        """All so far. Raises OpeningError and WordsError."""
        if segment.flags & URG:
            raise WordsError("urgent data, which some servers leave out of what they read")  # RFC 6093 section 3
        silent.said = silent.opening.add(segment.sequence, segment.data)
        words = read_words(silent.said, silent.known.flow.dport)
        if words.whole:
            return words
        if words.held:
            silent.until = min(silent.until, now + _WHOLE_WITHIN)
        if segment.cut:
            raise WordsError("its first words don't fit a packet that can be looked at")
        if words.held and now > silent.until:
            raise WordsError("its first words were not whole in time")
        if words.held and segment.ends not in self.held and self.held.full:
            raise WordsError("too many connections wait for their first words")
        return words

    def _go_on(self, silent: _Silent[C], now: float) -> Action:
        """The rest is not there. What is goes on, but with a name that would be denied in it."""
        known = silent.known
        seen = read_words(silent.said, known.flow.dport).seen
        if seen.name is not None and not self._judge.hinted(known.case, seen):
            return self._settle(known, seen, now)
        return _let_pass(silent)

    def _settle(self, known: _Known[C], seen: Seen, now: float) -> Action:
        return self._record(_Judged(known, seen, self._judge.named(known.case, seen), self._judge.era()), now)

    def _record(self, judged: _Judged[C], now: float) -> Action:
        ends = judged.known.ends
        for table in (self._silent, self._begun, self.held):
            table.pop(ends)
        self._judged.put(ends, judged, now)
        return judged.action


def _let_pass[C](silent: _Silent[C]) -> Action:
    """All that has come goes on, and is watched."""
    silent.passed, silent.last = len(silent.said), b""
    return Action.PEEK


def _answer(action: Action | None, packet: bytes, expected: int) -> Answer:
    """Of a packet whose receiver waits for this octet next."""
    return Answer(action, reset=reset(packet, expected) if action is Action.DENY else None)
