"""TCP connections that are looked into: scripts of packets, without a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.answers import Answer
from firewall.connections import Connections
from firewall.packet import COPIED, parse_packet
from firewall.segment import ACK, RST, read_segment
from policy.values import Action, Flow, Seen, Spoken
from tests.firewall.hellos import extension, hello, names, said
from tests.firewall.judges import Names
from tests.firewall.packets import JUST_ACK, PUSH_ACK, SYN, tcp
from tests.firewall.street import BOTH

ALLOW, DENY, PEEK = Action.ALLOW, Action.DENY, Action.PEEK
START = 2**32 - 50  # so that sequence numbers come round
GOOD, BAD = said("a.example"), said("b.example")


class Line:
    """One connection's packets, to a table of connections. `at` are the octets sent so far."""

    def __init__(self, judge: Names | None = None, *, version: int = 4, port: int = 443) -> None:
        self.judge = judge or Names()
        self.table = Connections(self.judge)
        self.version, self.port, self.now, self.at = version, port, 0.0, 0

    def send(
        self, sequence: int, flags: int, data: bytes = b"", *, copied: int | None = None, acknowledged: int = 1
    ) -> Answer:
        packet = tcp(sequence, flags, data, version=self.version, port=self.port, acknowledged=acknowledged)[:copied]
        return self.table.answer(parse_packet(packet), packet, self.now)

    def begin(self, data: bytes = b"") -> Answer:
        return self.send(START, SYN, data)

    def say(self, data: bytes) -> Action | None:
        self.at += len(data)
        return self.send(START + 1 + self.at - len(data), PUSH_ACK, data).action

    def wait(self, seconds: float) -> list[tuple[Flow, Action | None]]:
        self.now += seconds
        return [(flow, answer.action) for flow, answer in self.table.overdue(self.now)]


@BOTH
def test_a_connection_is_judged_by_its_first_words(version: int) -> None:
    for words, action in ((GOOD, ALLOW), (BAD, DENY), (said(None), DENY)):
        line = Line(version=version)
        assert line.begin() == Answer(PEEK, fresh=True)
        assert line.send(START + 1, JUST_ACK) == Answer(PEEK)
        assert line.say(words) is action
        assert len(line.judge.told) == len(line.judge.opened) == 1
        assert line.say(b"what was on its way") is action
        assert len(line.judge.told) == 1


@pytest.mark.parametrize("opens", [ALLOW, DENY, Action.INSPECT])
def test_other_verdicts_are_the_whole_answer(opens: Action) -> None:
    line = Line(Names(opens=opens))
    assert line.begin(b"early data") == Answer(opens, fresh=True)


def test_a_syn_s_data_stays_behind() -> None:
    answer = Line().begin(GOOD)
    assert answer.action is PEEK
    assert answer.instead is not None
    assert read_segment(answer.instead).data == b""


@given(st.lists(st.integers(1, 700), max_size=8), st.randoms(), st.booleans())
def test_pieces_in_any_order_come_to_the_same(sizes: Sequence[int], order: Random, good: bool) -> None:
    words = hello(names(b"a.example" if good else b"b.example") + extension(21, bytes(900)))
    cuts = sorted({size % len(words) for size in sizes} | {0, len(words)})
    pieces = [(start, words[start:end]) for start, end in pairwise(cuts)]
    order.shuffle(pieces)
    repeated = pieces[:1] if len(pieces) > 1 else []
    line = Line()
    line.begin()
    actions = [line.send(START + 1 + at, PUSH_ACK, piece).action for at, piece in (*repeated, *pieces)]
    assert set(actions[:-1]) <= {None}
    assert actions[-1] is (ALLOW if good else DENY)


def test_what_waits_goes_on_when_its_rest_does_not_come() -> None:
    line = Line()
    line.begin()
    assert line.say(GOOD[:50]) is None
    assert line.table.held.due() == pytest.approx(0.1)
    assert line.wait(0.09) == []
    ((flow, action),) = line.wait(0.02)
    assert (flow, action) == (line.judge.opened[0], PEEK)
    assert line.table.held.due() is None
    assert line.say(GOOD[50:]) is ALLOW
    assert line.judge.told == [Seen(Spoken.TLS, "a.example")]


def test_a_name_that_would_be_denied_does_not_go_on() -> None:
    words = hello(names(b"b.example") + extension(21, bytes(900)))
    line = Line()
    line.begin()
    assert line.say(words[:-1]) is None
    assert [action for _, action in line.wait(0.2)] == [DENY]
    assert line.say(words[-1:]) is DENY


def test_a_server_is_told_of_the_end_at_the_octet_that_it_waits_for() -> None:
    """It answers any other by asking back (RFC 5961 section 3.2)."""
    line = Line()
    line.begin()
    line.say(BAD[:50])  # is held
    answer = line.send(START + 1 + 50, PUSH_ACK, BAD[50:])
    assert answer.reset is not None
    assert read_segment(answer.reset).sequence == (START + 1) % 2**32
    line.at = 0
    line.begin()
    line.say(BAD[:50])
    line.wait(0.2)  # goes on
    answer = line.send(START + 1 + 50, PUSH_ACK, BAD[50:])
    assert answer.reset is not None
    assert read_segment(answer.reset).sequence == (START + 51) % 2**32
    assert line.send(START + 600, PUSH_ACK, b"on its way") == Answer(DENY)


def test_nobody_is_told_twice_of_a_connection_s_end() -> None:
    """What we send ourselves comes by the queue, too."""
    assert Line().send(START, RST | ACK) == Answer(DENY)
    assert Line().send(START, JUST_ACK).reset is not None


def test_a_name_that_would_be_denied_late_ends_the_connection_at_its_server() -> None:
    line = Line()
    line.begin()
    line.say(hello(names(b"b.example") + extension(21, bytes(900)))[:-1])
    ((_, answer),) = line.table.overdue(1.0)
    assert answer.reset is not None
    assert read_segment(answer.reset).sequence == (START + 1) % 2**32


def test_first_words_have_ten_seconds() -> None:
    line = Line()
    line.begin()
    for octet in GOOD[:7]:
        assert line.say(bytes([octet])) is None
        assert [action for _, action in line.wait(1.5)] == [PEEK]
    assert line.say(GOOD[7:]) is ALLOW
    line.at = 0
    line.begin()
    for octet in GOOD[:7]:
        assert line.say(bytes([octet])) is None
        line.wait(1.5)
    assert line.say(GOOD[7:9]) is DENY
    assert line.judge.problems == ["its first words were not whole in time"]


def test_lines_of_another_protocol_are_not_held_up() -> None:
    line = Line(port=2525)
    line.begin()
    assert line.say(b"hello") is PEEK
    line.wait(300)
    assert line.say(b", this is me\r\n") is ALLOW
    assert line.judge.told == [Seen(Spoken.OTHER, None)]


def test_a_line_may_turn_out_as_a_request() -> None:
    line = Line(port=8080)
    line.begin()
    assert line.say(b"QUUX /") is PEEK
    assert line.say(b" HTTP/1.1\r\nHost: b.example\r\n\r\n") is DENY


def test_too_much_or_two_versions_of_it_are_denied() -> None:
    line = Line()
    line.begin()
    assert line.say(b"\x16\3\1\x40\0") is None
    assert line.send(START + 1, PUSH_ACK, b"\x16\3\2").action is DENY
    line.begin()
    assert line.send(START + 1 + (1 << 14), PUSH_ACK, b"x").action is DENY
    assert line.judge.problems == ["two versions of the same octets", "more than 16384 octets"]


def test_urgent_data_is_denied() -> None:
    """MSG_OOB takes no privilege, and takes an octet out of what most servers read."""
    line = Line()
    line.begin()
    assert line.send(START + 1, PUSH_ACK | 0x20, GOOD).action is DENY


def test_words_behind_what_is_copied_are_not_guessed() -> None:
    line = Line()
    line.begin()
    words = hello(names(b"a.example") + extension(21, bytes(5000)))
    assert line.send(START + 1, PUSH_ACK, words, copied=COPIED).action is DENY


def test_the_middle_of_a_connection_that_nobody_saw_begin_is_for_the_judge() -> None:
    line = Line()
    assert line.say(GOOD) is DENY
    assert line.judge.problems == ["again"]


def test_another_policy_judges_again() -> None:
    line = Line()
    line.begin()
    assert line.say(GOOD) is ALLOW
    line.judge.policy, line.judge.good = 2, frozenset()
    assert line.say(b"x") is DENY
    assert line.judge.told == [Seen(Spoken.TLS, "a.example")] * 2


UNPROVEN = Answer(ALLOW, unproven=True)
# From which octet on, and what is said there after GOOD was let through.
REPEATED = {
    "all of it": (0, GOOD),
    "its beginning": (0, GOOD[:100]),
    "its end, and more": (100, GOOD[100:] + b"more"),
    "what is behind it": (len(GOOD), b"more"),
    "an octet before it": (-1, b"\0" + GOOD),
    "nothing": (0, b""),
}


@pytest.mark.parametrize(("at", "data"), REPEATED.values(), ids=REPEATED)
def test_words_may_come_again_as_they_were(at: int, data: bytes) -> None:
    line = Line()
    line.begin()
    assert line.send(START + 1, PUSH_ACK, GOOD) == UNPROVEN
    for _ in range(3):
        assert line.send(START + 1 + at, PUSH_ACK, data) == UNPROVEN
    assert len(line.judge.told) == 1


OTHERWISE = {
    "another name": (0, BAD),
    "its end": (100, GOOD[100:-1] + b"?"),
    "from before it": (-2, b"\0\0" + BAD),
    "and more": (0, BAD + b"more"),
}


@pytest.mark.parametrize(("at", "data"), OTHERWISE.values(), ids=OTHERWISE)
def test_other_words_in_their_place_are_denied(at: int, data: bytes) -> None:
    """A program can change what it has sent until it is acknowledged, and see to it that it does not arrive."""
    line = Line()
    line.begin()
    line.say(GOOD)
    denied = line.send(START + 1 + at, PUSH_ACK, data)
    assert denied.action is DENY
    assert denied.reset is not None
    assert read_segment(denied.reset).sequence == (START + 1) % 2**32
    assert line.judge.problems == ["other words in the place of those that were judged"]
    assert line.send(START + 1, PUSH_ACK, GOOD).action is DENY


def test_words_that_can_t_be_seen_are_not_taken_for_the_same() -> None:
    line = Line()
    line.begin()
    whole = GOOD + bytes(COPIED - 40 - len(GOOD))
    assert line.send(START + 1, PUSH_ACK, whole) == UNPROVEN
    assert line.send(START + 1, PUSH_ACK, whole + bytes(1000), copied=COPIED) == UNPROVEN
    assert line.send(START, PUSH_ACK, b"\0" + whole + bytes(1000), copied=COPIED).action is DENY


@pytest.mark.parametrize(
    ("at", "acknowledged", "proven"),
    [(len(GOOD), 2, True), (1 << 20, 1, True), (len(GOOD), 0, False), (60_000, 1, False)],
    ids=["an answer", "far behind", "older news", "near"],
)
def test_what_has_arrived_is_compared_no_more(at: int, acknowledged: int, *, proven: bool) -> None:
    line = Line()
    line.begin()
    line.say(GOOD)
    assert line.send(START + 1 + at, PUSH_ACK, b"x", acknowledged=acknowledged) == Answer(ALLOW, unproven=not proven)
    assert line.send(START + 1, PUSH_ACK, BAD).action is (ALLOW if proven else DENY)


def test_what_was_forgotten_for_others_may_not_go_on() -> None:
    table = Connections(judge := Names())

    def send(port: int, sequence: int, flags: int, data: bytes, now: float) -> Action | None:
        packet = tcp(sequence, flags, data, port=port)
        return table.answer(parse_packet(packet), packet, now).action

    for port in range(1, 1026):
        send(port, START, SYN, b"", 0.0)
        assert send(port, START + 1, PUSH_ACK, GOOD, 0.0) is ALLOW
    assert send(2, START + 1, PUSH_ACK, GOOD, 1.0) is ALLOW
    assert send(1, START + 1, PUSH_ACK, BAD, 1.0) is DENY
    assert judge.problems == ["its first words are forgotten: too many connections were begun since"]
    assert send(1, START + 1, PUSH_ACK, BAD, 200.0) is DENY
    assert judge.problems[1:] == ["again"]  # by then nothing comes again


def test_a_new_connection_with_the_same_ends_is_a_new_one() -> None:
    line = Line()
    line.begin()
    assert line.say(BAD) is DENY
    line.at = 0
    assert line.begin().fresh
    assert line.say(GOOD) is ALLOW


def test_silence_is_forgotten_and_room_is_bounded() -> None:
    line = Line()
    line.begin()
    line.now += 601
    assert line.say(GOOD) is DENY
    table = Connections(judge := Names())
    for port in range(1, 9_001):
        packet = tcp(START, SYN, port=port)
        table.answer(parse_packet(packet), packet, 0.0)
    assert table.evicted == 9_000 - 8_192
    for port, action in ((1, DENY), (9_000, ALLOW)):
        packet = tcp(START + 1, PUSH_ACK, GOOD, port=port)
        assert table.answer(parse_packet(packet), packet, 0.0).action is action
    assert judge.problems == ["again"]


def test_only_so_many_may_have_begun() -> None:
    table = Connections(Names())
    for port in range(1, 601):
        for packet in (tcp(START, SYN, port=port), tcp(START + 1, PUSH_ACK, GOOD[:9], port=port)):
            table.answer(parse_packet(packet), packet, float(port))
        list(table.overdue(float(port) + 0.5))
    assert table.evicted == 600 - 512


def test_only_so_many_wait() -> None:
    table = Connections(judge := Names())
    for port in range(1, 130):
        for packet in (tcp(START, SYN, port=port), tcp(START + 1, PUSH_ACK, GOOD[:9], port=port)):
            answer = table.answer(parse_packet(packet), packet, 0.0)
        assert answer.action is (None if port <= 128 else DENY)
    assert judge.problems == ["too many connections wait for their first words"]
    assert len(list(table.overdue(1.0))) == 128
