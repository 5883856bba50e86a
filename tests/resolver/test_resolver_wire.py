"""The wire gate: every byte string becomes a question, a prompt refusal, or silence."""

from __future__ import annotations

import struct
import time

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver import wire
from resolver.wire import Edns, Question, Rejection, read_query

NAME = b"\x03www\x07example\x03com\x00"
OPT = struct.pack("!BHHIH", 0, 41, 4096, 0, 0)


def query(
    name: bytes = NAME,
    *,
    qtype: int = 1,
    qclass: int = 1,
    flags: int = 0x0100,
    counts: str = "1 0 0 0",
    rest: bytes = b"",
) -> bytes:
    return (
        struct.pack("!6H", 0xBEEF, flags, *map(int, counts.split())) + name + struct.pack("!HH", qtype, qclass) + rest
    )


def rcode(result: object) -> int | None:
    assert not isinstance(result, Question), result
    return result.rcode if isinstance(result, Rejection) else None


def test_a_plain_question_is_read() -> None:
    assert read_query(query(b"\x03wWw\x07eXample\x03com\x00", qtype=28)) == Question(
        id=0xBEEF, flags=0x0100, name="www.example.com", asked=b"\x03wWw\x07eXample\x03com\x00", qtype=28, edns=None
    )


def test_what_an_opt_record_says_is_read() -> None:
    opt = struct.pack("!BHHBBHH", 0, 41, 1400, 0, 0, 0x8000, 8) + struct.pack("!HH4s", 10, 4, b"cook")
    question = read_query(query(counts="1 0 0 1", rest=opt))
    assert isinstance(question, Question)
    assert question.edns == Edns(1400, dnssec_ok=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param(b"\x00", "", id="root"),
        pytest.param(b"\x04_sip\x04_tcp\x01x\x00", "_sip._tcp.x", id="underscores"),
        pytest.param(b"\x3f" + b"a" * 63 + b"\x00", "a" * 63, id="longest-label"),
        pytest.param(b"\x01a" * 127 + b"\x00", ".".join("a" * 127), id="longest-name"),
    ],
)
def test_names_that_are_legal(name: bytes, text: str) -> None:
    question = read_query(query(name))
    assert isinstance(question, Question)
    assert question.name == text
    assert wire.wire_name(text) == name


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(b"", None, id="empty"),
        pytest.param(query()[:11], None, id="shorter-than-a-header"),
        pytest.param(query(flags=0x8100), None, id="a-response-is-never-answered"),
        pytest.param(query(flags=0x8100, counts="0 0 0 0"), None, id="nor-a-malformed-one"),
        pytest.param(query(flags=0x2900), wire.NOTIMP, id="opcode-update"),
        pytest.param(query(flags=0x1000), wire.NOTIMP, id="opcode-status"),
        pytest.param(query(flags=0x0300), wire.FORMERR, id="truncated-question"),
        pytest.param(query()[:12], wire.FORMERR, id="header-alone"),
        pytest.param(query(counts="0 0 0 0"), wire.FORMERR, id="no-question"),
        pytest.param(query(counts="2 0 0 0", rest=NAME + b"\0\1\0\1"), wire.FORMERR, id="two-questions"),
        pytest.param(query(counts="1 1 0 0"), wire.FORMERR, id="an-answer-in-a-question"),
        pytest.param(query(counts="1 0 1 0"), wire.FORMERR, id="authority-in-a-question"),
        pytest.param(query(counts="1 0 0 2", rest=OPT + OPT), wire.FORMERR, id="two-opt-records"),
        pytest.param(query(counts="1 0 0 65535", rest=OPT), wire.FORMERR, id="counts-that-lie"),
        pytest.param(query()[:-1], wire.FORMERR, id="half-a-class"),
        pytest.param(query(rest=b"\0"), wire.FORMERR, id="octets-after-the-question"),
        pytest.param(query(counts="1 0 0 1", rest=OPT + b"\0"), wire.FORMERR, id="octets-after-the-opt"),
        pytest.param(query(counts="1 0 0 1", rest=OPT[:-1]), wire.FORMERR, id="half-an-opt"),
        pytest.param(query(counts="1 0 0 1", rest=b"\xc0\x0c" + OPT[1:]), wire.FORMERR, id="opt-not-at-the-root"),
        pytest.param(query(counts="1 0 0 1", rest=b"\0\0\1" + OPT[3:]), wire.FORMERR, id="additional-not-an-opt"),
        pytest.param(
            query(counts="1 0 0 1", rest=OPT[:-2] + b"\0\5\0\x0a\0\2c"),
            wire.FORMERR,
            id="option-longer-than-its-record",
        ),
        pytest.param(query(b"\xc0\x0c"), wire.FORMERR, id="pointer-to-itself"),
        pytest.param(query(b"\x03www\xc0\x0c"), wire.FORMERR, id="compressed-question"),
        pytest.param(query(b"\x41" + b"a" * 65 + b"\0"), wire.FORMERR, id="label-type-01"),
        pytest.param(query(b"\x81" + b"a" * 129 + b"\0"), wire.FORMERR, id="label-type-10"),
        pytest.param(query(b"\x01a" * 128 + b"\0"), wire.FORMERR, id="name-of-257-octets"),
        pytest.param(query(b"\x3fabc"), wire.FORMERR, id="label-beyond-the-message"),
        pytest.param(query(rest=b"\0" * 4096), wire.FORMERR, id="far-too-long"),
        pytest.param(query(qtype=41), wire.FORMERR, id="type-opt"),
        pytest.param(query(qclass=3), wire.REFUSED, id="class-chaos"),
        pytest.param(query(qclass=255), wire.REFUSED, id="class-any"),
        pytest.param(query(qtype=0), wire.REFUSED, id="type-0"),
        pytest.param(query(qtype=10), wire.REFUSED, id="type-null"),
        pytest.param(query(qtype=249), wire.REFUSED, id="type-tkey"),
        pytest.param(query(qtype=251), wire.REFUSED, id="type-ixfr"),
        pytest.param(query(qtype=252), wire.REFUSED, id="type-axfr"),
        pytest.param(query(b"\x0bexample.com\0"), wire.REFUSED, id="dot-inside-a-label"),
        pytest.param(query(b"\x04a\x00bc\0"), wire.REFUSED, id="nul-inside-a-label"),
        pytest.param(query(b"\x03a b\0"), wire.REFUSED, id="blank-inside-a-label"),
        pytest.param(query(b"\x02\xc3\xa9\0"), wire.REFUSED, id="raw-utf-8"),
        pytest.param(query(counts="1 0 0 1", rest=b"\0\0\x29\x10\0\0\1\0\0\0\0"), wire.BADVERS, id="edns-version-1"),
    ],
)
def test_what_is_refused_and_how(message: bytes, expected: int | None) -> None:
    result = read_query(message)
    assert rcode(result) == expected
    if isinstance(result, Rejection):
        reply = dnslib.DNSRecord.parse(result.reply)
        assert (reply.header.id, reply.header.qr, reply.header.rcode) == (0xBEEF, 1, expected & 15 if expected else 0)
        assert len(result.reply) <= len(message), "a refusal must not amplify"


def test_bad_version_carries_its_high_bits_in_an_opt_record() -> None:
    result = read_query(query(counts="1 0 0 1", rest=b"\0\0\x29\x10\0\0\7\0\0\0\0"))
    assert isinstance(result, Rejection)
    opt = dnslib.DNSRecord.parse(result.reply).ar[0]
    assert (opt.edns_rcode, opt.edns_ver) == (1, 0)


@pytest.mark.parametrize(("size", "limit"), [(0, 512), (511, 512), (1000, 1000), (1232, 1232), (65535, 1232)])
def test_udp_replies_fit_what_the_client_takes(size: int, limit: int) -> None:
    assert Question(1, 0, "x", b"\1x\0", 1, Edns(size, dnssec_ok=False)).udp_size == limit


@pytest.mark.parametrize("text", ["a..b", ".", "a" * 64, "é.com", ".".join("a" * 128)])
def test_text_that_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        wire.wire_name(text)


@settings(deadline=None)  # how long it takes on a busy machine proves nothing
@given(st.binary(max_size=600))
def test_garbage_never_raises(data: bytes) -> None:
    assert isinstance(read_query(data), Question | Rejection | None)


@settings(deadline=None)
@given(st.data())
def test_damaged_questions_never_raise_and_never_gain_a_meaning(data: st.DataObject) -> None:
    """Whatever passes this gate, a second DNS library reads as the very same question."""
    good = bytearray(query(counts="1 0 0 1", rest=OPT))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    message = bytes(good[:cut]) if data.draw(st.booleans()) else bytes(good)
    result = read_query(message)
    if isinstance(result, Question):
        other = dnslib.DNSRecord.parse(message)
        assert str(other.q.qname).lower().rstrip(".") == result.name
        assert (other.q.qtype, other.q.qclass, len(other.questions)) == (result.qtype, 1, 1)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(query(b"\x01a" * 1000 + b"\0"), id="a-thousand-labels"),
        pytest.param(query(b"".join(struct.pack("!H", 0xC00C + 2 * i) for i in range(500))), id="a-chain-of-pointers"),
        pytest.param(query(counts="1 0 0 1", rest=OPT[:-2] + b"\4\xb0" + b"\0\1\0\0" * 300), id="300-options"),
        pytest.param(b"\xff" * 65535, id="64-kib-of-ones"),
        pytest.param(b"\x00" * 65535, id="64-kib-of-zeros"),
    ],
)
def test_crafted_questions_take_less_than_a_millisecond(message: bytes) -> None:
    best = min(_seconds(message) for _ in range(5))
    assert best < 0.001


def _seconds(message: bytes) -> float:
    start = time.perf_counter()
    read_query(message)
    return time.perf_counter() - start
