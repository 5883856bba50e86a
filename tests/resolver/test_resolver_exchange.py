"""The exchange, played move by move: what is said to it, and what it says to do."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import dnslib
import pytest

from resolver import wire
from resolver.exchange import Answered, Asked, Attempt, Exchange, Failed, Patience, Step, question_bytes
from resolver.reply import Ede
from resolver.upstreams import Transport, Upstream, parse_upstream
from resolver.wire import wire_name

FIRST, SECOND = parse_upstream("192.0.2.53"), parse_upstream("192.0.2.54")
ASKED = Asked(wire_name("www.a-long-enough-name.example.com"), wire.A)
PATIENCE = Patience(udp=1.0, stream=2.0, total=4.5, after_error=0.1, rounds=2, near_misses=3)


def reply_to(attempt: Attempt, *, rcode: int = 0, tc: int = 0) -> bytes:
    """What an honest upstream says."""
    reply = dnslib.DNSRecord.parse(attempt.payload).reply(ra=1)
    reply.header.rcode, reply.header.tc = rcode, tc
    if not (rcode or tc):
        reply.add_answer(dnslib.RR(reply.q.qname, wire.A, rdata=dnslib.A("192.0.2.1"), ttl=60))
    return bytes(reply.pack())


@dataclass
class Play:
    """An exchange and the clock of its world; `step` is what it said last."""

    upstreams: tuple[Upstream, ...] = (FIRST, SECOND)
    now: float = 100.0
    patience: Patience = PATIENCE
    exchange: Exchange = field(init=False)
    step: Step | None = field(init=False)

    def __post_init__(self) -> None:
        bits = random.Random(4).getrandbits
        self.exchange = Exchange(ASKED, self.upstreams, self.patience, bits)
        self.step = self.exchange.start(self.now)
        self.attempt = self.sent()

    def sent(self) -> Attempt:
        """The attempt that was just asked for."""
        assert isinstance(self.step, Attempt), self.step
        self.attempt = self.step
        return self.step

    def after(self, seconds: float) -> Play:
        self.now += seconds
        return self

    def hears(self, data: bytes) -> Step | None:
        self.step = self.exchange.receive(data, self.now)
        return self.step

    def ignores(self, data: bytes) -> Play:
        before = self.exchange.deadline
        assert self.hears(data) is None
        assert self.exchange.deadline == before, "what is ignored must not prolong the wait"
        return self

    def times_out(self) -> Step:
        self.now = self.exchange.deadline
        self.step = self.exchange.time_out(self.now)
        return self.step


def test_the_answer_ends_it() -> None:
    play = Play()
    outcome = play.after(0.02).hears(reply_to(play.attempt))
    assert isinstance(outcome, Answered)
    assert outcome.upstream == FIRST
    assert outcome.rtt == pytest.approx(0.02)


def test_the_question_is_ours_and_no_two_are_alike() -> None:
    questions = [question_bytes(ASKED, random.Random(seed).getrandbits) for seed in range(50)]
    read = [dnslib.DNSRecord.parse(question) for question in questions]
    assert len({each.header.id for each in read}) > 45
    assert len({bytes(b".".join(each.q.qname.label)) for each in read}) == 50
    assert all(each.q.qname == "www.a-long-enough-name.example.com" for each in read)
    assert {(each.ar[0].edns_len, each.ar[0].edns_do, each.header.rd, each.header.cd) for each in read} == {
        (1232, 0, 1, 0)
    }


def test_what_a_client_wants_checked_is_passed_on_and_nothing_else() -> None:
    question = dnslib.DNSRecord.parse(question_bytes(Asked(b"\0", 28, True, True), random.Random(1).getrandbits))
    assert (question.ar[0].edns_do, question.header.cd, question.q.qtype) == (1, 1, 28)


def spoil(at: int, value: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes((data[at] ^ value,)) + data[at + 1 :]


FORGERIES = {
    "wrong-id": spoil(1, 1),
    "another-case": spoil(13, 0x20),
    "another-name": spoil(14, 1),
    "another-type": spoil(12 + len(ASKED.name) + 1, 16),
    "another-class": spoil(12 + len(ASKED.name) + 3, 2),
    "a-question": spoil(2, 0x80),
    "an-opcode": spoil(2, 0x10),
    "cut-short": lambda data: data[:-1],
    "header-alone": lambda data: data[:12],
    "id-alone": lambda data: data[:2],
    "empty": lambda _: b"",
    "no-question": lambda data: data[:4] + b"\0\0" + data[6:],
    "octets-behind": lambda data: data + b"\0",
    "records-that-lie": lambda data: data[:6] + b"\xff\xff" + data[8:],
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_ignored_and_the_answer_behind_it_wins(forge: Callable[[bytes], bytes]) -> None:
    play = Play()
    answer = reply_to(play.attempt)
    play.ignores(forge(answer))
    assert isinstance(play.hears(answer), Answered)
    assert play.exchange.ignored == 1


def test_every_wrong_id_is_ignored_and_then_udp_is_given_up() -> None:
    play = Play()
    forged = reply_to(play.attempt)
    play.ignores(struct.pack("!H", 1) + forged[2:]).ignores(struct.pack("!H", 2) + forged[2:])
    assert isinstance(play.hears(struct.pack("!H", 3) + forged[2:]), Attempt)
    assert (play.sent().transport, play.attempt.upstream) == (Transport.TCP, FIRST)


def test_a_truncated_answer_is_asked_for_again_over_tcp() -> None:
    play = Play()
    before = play.attempt
    play.hears(reply_to(play.attempt, tc=1))
    again = play.sent()
    assert (again.upstream, again.transport) == (FIRST, Transport.TCP)
    assert again.payload[:2] != before.payload[:2], "a new attempt has a new id"
    assert isinstance(play.hears(reply_to(again)), Answered)


def test_over_tcp_an_upstream_that_lowers_case_is_believed() -> None:
    play = Play()
    play.hears(reply_to(play.attempt, tc=1))
    assert isinstance(play.hears(bytes(reply_to(play.sent()).lower())), Answered)


def test_an_upstream_that_does_not_keep_our_case_is_asked_over_tcp() -> None:
    play = Play()
    answer = reply_to(play.attempt)
    play.ignores(answer[:12] + answer[12:46].lower() + answer[46:])
    play.times_out()
    assert (play.sent().upstream, play.attempt.transport) == (FIRST, Transport.TCP)


def test_silence_goes_on_to_the_next_upstream_and_a_late_answer_is_none() -> None:
    play = Play()
    late = reply_to(play.attempt)
    play.times_out()
    assert play.sent().upstream == SECOND
    assert play.now == 101.0
    play.ignores(late)
    assert isinstance(play.hears(reply_to(play.attempt)), Answered)
    assert play.exchange.timed_out == (FIRST,)


def test_all_silent_fails_within_the_total_and_says_why() -> None:
    play = Play()
    while not isinstance(play.times_out(), Failed):
        play.sent()
    assert isinstance(play.step, Failed)
    assert play.step.explanation is not None
    assert play.step.explanation.code is Ede.NO_REACHABLE_AUTHORITY
    assert play.now - 100.0 <= PATIENCE.total
    assert play.exchange.timed_out == (FIRST, SECOND, FIRST, SECOND)


def test_the_last_wait_is_cut_to_the_total() -> None:
    play = Play(patience=Patience(udp=1.0, total=1.5))
    play.times_out()
    assert (play.sent().upstream, play.exchange.deadline) == (SECOND, 101.5)
    assert isinstance(play.times_out(), Failed)


def test_an_icmp_error_shortens_the_wait_but_a_true_answer_still_wins() -> None:
    play = Play()
    assert play.exchange.network_error(play.now) is None
    assert play.exchange.deadline == pytest.approx(play.now + 0.1)
    assert isinstance(play.hears(reply_to(play.attempt)), Answered)


def test_all_unreachable_fails_soon_and_says_why() -> None:
    play = Play()
    while not isinstance(play.step, Failed):
        play.exchange.network_error(play.now)
        play.times_out()
    assert play.step.explanation is not None
    assert play.step.explanation.code is Ede.NETWORK_ERROR
    assert play.now - 100.0 == pytest.approx(0.4)


@pytest.mark.parametrize("rcode", [1, 2, 4, 5, 9], ids=["formerr", "servfail", "notimp", "refused", "notauth"])
def test_an_upstream_that_fails_is_not_asked_again(rcode: int) -> None:
    play = Play()
    play.hears(reply_to(play.attempt, rcode=rcode))
    assert play.sent().upstream == SECOND
    assert play.hears(reply_to(play.attempt, rcode=rcode)) == Failed(None)


def test_a_hostile_tcp_stream_goes_on_to_the_next_upstream() -> None:
    play = Play()
    play.hears(reply_to(play.attempt, tc=1))
    play.hears(b"\0" * 40)
    assert play.step is not None
    assert (play.sent().upstream, play.attempt.transport) == (SECOND, Transport.UDP)


def test_truncation_over_tcp_is_no_answer() -> None:
    play = Play()
    play.hears(reply_to(play.attempt, tc=1))
    play.hears(reply_to(play.sent(), tc=1))
    assert play.sent().upstream == SECOND


def test_truncation_for_ever_ends() -> None:
    play = Play((FIRST,))
    for _ in range(10):
        if isinstance(play.step, Failed):
            return
        play.hears(reply_to(play.sent(), tc=1))
    pytest.fail("an upstream that only truncates keeps it going")


def test_no_name_like_nxdomain_is_an_answer() -> None:
    play = Play()
    outcome = play.hears(reply_to(play.attempt, rcode=wire.NXDOMAIN))
    assert isinstance(outcome, Answered)
    assert outcome.message.rcode == wire.NXDOMAIN


def test_feeding_before_the_start_is_an_error_of_ours() -> None:
    with pytest.raises(RuntimeError):
        Exchange(ASKED, (FIRST,)).receive(b"", 0.0)
