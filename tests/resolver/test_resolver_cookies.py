"""DNS cookies towards the upstreams: what a forger lacks, and what becomes of an upstream that changes its mind."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import dnslib
import pytest

from resolver import wire
from resolver.cookies import Cookies
from resolver.exchange import Answered, Asked, Attempt, Exchange, Failed, Patience, Step
from resolver.message import MessageError, read_response
from resolver.upstreams import Transport, parse_upstream
from resolver.wire import wire_name

UPSTREAM = parse_upstream("192.0.2.53")
ASKED = Asked(wire_name("www.example.com"), wire.A)
PATIENCE = Patience(udp=1.0, stream=2.0, total=4.5, rounds=1, near_misses=3)
SERVER = bytes(range(16))
COOKIE = 10


def cookie_of(attempt: Attempt) -> bytes:
    """What a server would read out of the question."""
    options = dnslib.DNSRecord.parse(attempt.payload).ar[0].rdata
    return b"".join(bytes(option.data) for option in options if option.code == COOKIE)


def answer(attempt: Attempt, cookie: bytes | None, rcode: int = 0) -> bytes:
    reply = dnslib.DNSRecord.parse(attempt.payload).reply(ra=1)
    reply.header.rcode = rcode & 15
    reply.add_answer(dnslib.RR(reply.q.qname, wire.A, rdata=dnslib.A("192.0.2.1"), ttl=60))
    options = [] if cookie is None else [dnslib.EDNSOption(COOKIE, cookie)]
    reply.add_ar(dnslib.EDNS0(ext_rcode=rcode >> 4, opts=options))
    return bytes(reply.pack())


@dataclass
class Play:
    """One question after the other, to one upstream, with the cookies of a whole life."""

    cookies: Cookies = field(default_factory=lambda: Cookies(random.Random(4).getrandbits))
    now: float = 100.0
    exchange: Exchange = field(init=False)

    def asks(self) -> Attempt:
        self.exchange = Exchange(ASKED, (UPSTREAM,), PATIENCE, random.Random(5).getrandbits, self.cookies)
        return self.sent(self.exchange.start(self.now))

    def sent(self, step: Step | None) -> Attempt:
        assert isinstance(step, Attempt), step
        return step

    def hears(self, data: bytes) -> Step | None:
        return self.exchange.receive(data, self.now)

    def acquainted(self) -> bytes:
        """Both know each other's cookie; ours."""
        ours = cookie_of(attempt := self.asks())
        assert isinstance(self.hears(answer(attempt, ours + SERVER)), Answered)
        return ours


def test_ours_goes_out_first_and_theirs_goes_back() -> None:
    play = Play()
    ours = play.acquainted()
    assert len(ours) == 8
    assert cookie_of(play.asks()) == ours + SERVER


def test_each_upstream_has_its_own_and_none_lasts_for_ever() -> None:
    cookies = Cookies(random.Random(4).getrandbits)
    first, other = cookies.of(UPSTREAM, 0.0), cookies.of(parse_upstream("192.0.2.54"), 0.0)
    assert first.client != other.client
    cookies.learn(UPSTREAM, first, first.client + SERVER)
    assert cookies.of(UPSTREAM, 3599.0).server == SERVER
    renewed = cookies.of(UPSTREAM, 3600.0)
    assert (renewed.client != first.client, renewed.server) == (True, b"")
    cookies.learn(UPSTREAM, first, first.client + SERVER)
    assert cookies.of(UPSTREAM, 3600.0) == renewed, "a late answer to the old one teaches nothing"


@pytest.mark.parametrize("acquainted", [False, True])
@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(bytes(8) + SERVER, id="not-ours"),
        pytest.param(b"", id="empty"),
        pytest.param(bytes(4), id="short"),
        pytest.param(bytes(41), id="long"),
    ],
)
def test_an_answer_with_another_cookie_is_ignored_and_the_true_one_wins(forged: bytes, acquainted: bool) -> None:
    play = Play()
    if acquainted:
        play.acquainted()
    attempt = play.asks()
    assert play.hears(answer(attempt, forged)) is None
    assert play.exchange.ignored == 1
    assert isinstance(play.hears(answer(attempt, cookie_of(attempt)[:8] + SERVER)), Answered)


@pytest.mark.parametrize("size", [0, 8, 32], ids=["echoed", "shortest", "longest"])
def test_cookies_of_every_allowed_size_are_taken(size: int) -> None:
    play = Play()
    attempt = play.asks()
    assert isinstance(play.hears(answer(attempt, cookie_of(attempt) + bytes(size))), Answered)
    assert len(cookie_of(play.asks())) == 8 + size


def test_an_upstream_without_cookies_is_believed_as_before() -> None:
    play = Play()
    for _ in range(3):
        assert isinstance(play.hears(answer(play.asks(), None)), Answered)


def test_an_answer_that_lacks_the_cookie_is_asked_for_over_tcp_and_then_none_is_expected() -> None:
    """A forger who guessed all the rest, or a cache before a server that has cookies."""
    play = Play()
    ours = play.acquainted()
    attempt = play.sent(play.hears(answer(play.asks(), None)))
    assert (attempt.transport, attempt.upstream, cookie_of(attempt)) == (Transport.TCP, UPSTREAM, b"")
    assert isinstance(play.hears(answer(attempt, None)), Answered)
    play.acquainted()
    attempt = play.asks()
    assert cookie_of(attempt)[:8] != ours
    assert isinstance(play.hears(answer(attempt, None)), Answered)
    play.now += 3600
    assert play.acquainted() != b""
    assert len(cookie_of(play.asks())) == 24, "after a while it is tried again"


def test_badcookie_is_asked_again_once_with_the_new_one() -> None:
    play = Play()
    ours = play.acquainted()
    again = play.sent(play.hears(answer(play.asks(), ours + SERVER[::-1], wire.BADCOOKIE)))
    assert (again.transport, cookie_of(again)) == (Transport.UDP, ours + SERVER[::-1])
    assert isinstance(play.hears(answer(again, ours + SERVER[::-1])), Answered)


def test_badcookie_for_ever_ends_over_tcp() -> None:
    play = Play()
    attempt = play.asks()
    ours = cookie_of(attempt)
    attempt = play.sent(play.hears(answer(attempt, ours + SERVER, wire.BADCOOKIE)))
    attempt = play.sent(play.hears(answer(attempt, ours + SERVER, wire.BADCOOKIE)))
    assert attempt.transport is Transport.TCP
    assert play.hears(answer(attempt, None, wire.BADCOOKIE)) == Failed(None)


def test_badcookie_with_another_cookie_is_a_forgery() -> None:
    play = Play()
    attempt = play.asks()
    assert play.hears(answer(attempt, bytes(8) + SERVER, wire.BADCOOKIE)) is None


def opt(owner: bytes = b"\0", options: bytes = b"", length: int | None = None) -> bytes:
    return owner + struct.pack("!HHIH", wire.OPT, 1232, 0, len(options) if length is None else length) + options


@pytest.mark.parametrize(
    ("records", "counts"),
    [
        pytest.param(opt() + opt(), (0, 0, 2), id="two"),
        pytest.param(opt(b"\1a\0"), (0, 0, 1), id="not-at-the-root"),
        pytest.param(opt(), (1, 0, 0), id="in-the-answer"),
        pytest.param(opt(), (0, 1, 0), id="in-the-authority"),
        pytest.param(opt(options=b"\0\x0a\0\x09" + bytes(8)), (0, 0, 1), id="option-too-long"),
        pytest.param(opt(options=b"\0\x0a\0"), (0, 0, 1), id="half-an-option"),
    ],
)
def test_an_opt_record_that_may_not_be_is_no_answer(records: bytes, counts: tuple[int, int, int]) -> None:
    header = struct.pack("!6H", 1, wire.QR, 1, *counts)
    with pytest.raises(MessageError):
        read_response(header + ASKED.name + struct.pack("!HH", wire.A, wire.IN) + records)


def test_the_extended_rcode_counts() -> None:
    """BADVERS has the low bits of NOERROR."""
    play = Play()
    assert play.hears(answer(play.asks(), None, wire.BADVERS)) == Failed(None)


@pytest.mark.parametrize("name", ["a.example", "www.a-rather-long-name-that-says-much.example.com"])
def test_questions_over_tls_are_all_of_one_size(name: str) -> None:
    tls = parse_upstream("tls://192.0.2.53#dns.example")
    step = Exchange(Asked(wire_name(name), wire.A), (tls,)).start(0.0)
    assert isinstance(step, Attempt)
    assert (len(step.payload), cookie_of(step)) == (128, b"")
    assert {option.code for option in dnslib.DNSRecord.parse(step.payload).ar[0].rdata} == {12}
