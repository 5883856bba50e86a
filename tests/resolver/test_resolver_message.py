"""Upstream responses: well-formed ones are read as a second DNS library reads them, all others are refused."""

from __future__ import annotations

import contextlib
import struct
import time

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver import wire
from resolver.message import MAX_HOPS, MAX_RECORDS, Message, MessageError, Record, encode_records, read_response

NAME = b"\x03www\x07example\x03com\x00"
QUESTION = NAME + b"\0\1\0\1"
A_RECORD = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
FIRST = 12 + len(QUESTION)  # the offset of the first record


def response(*records: bytes, flags: int = 0x8180, counts: str | None = None, question: bytes = QUESTION) -> bytes:
    numbers = map(int, counts.split()) if counts else (1, len(records), 0, 0)
    return struct.pack("!6H", 7, flags, *numbers) + question + b"".join(records)


def record(owner: bytes, rtype: int, data: bytes, ttl: int = 60, rclass: int = 1) -> bytes:
    return owner + struct.pack("!HHIH", rtype, rclass, ttl, len(data)) + data


def test_an_answer_is_read_flat_and_in_lower_case() -> None:
    message = read_response(
        response(
            record(b"\xc0\x0c", 5, b"\3CDN\xc0\x10"),  # cdn.example.com, partly from the question
            record(b"\xc0" + bytes((FIRST + 12,)), 1, b"\xc0\0\2\1"),  # owner: the alias's target
            question=b"\3wWw\7eXaMpLe\3com\0\0\1\0\1",
        )
    )
    assert message.asked == b"\3wWw\7eXaMpLe\3com\0"
    assert message.answers == (
        Record(NAME, wire.CNAME, 60, b"\3cdn\7example\3com\0"),
        Record(b"\3cdn\7example\3com\0", wire.A, 60, b"\xc0\0\2\1"),
    )


@pytest.mark.parametrize(
    ("ttl", "read"),
    [(0, 0), (60, 60), (0x7FFFFFFF, 0x7FFFFFFF), (0x80000000, 0), (0xFFFFFFFF, 0)],
    ids=["zero", "minute", "largest", "high-bit", "all-bits"],
)
def test_a_ttl_with_the_high_bit_is_zero(ttl: int, read: int) -> None:  # RFC 2181 8
    assert read_response(response(record(b"\xc0\x0c", 1, b"\1\2\3\4", ttl))).answers[0].ttl == read


LONG = (b"\x3c" + b"b" * 60) * 2


def pointer(to: int) -> bytes:
    return struct.pack("!H", 0xC000 | to)


def pointer_chain(hops: int) -> bytes:
    """An owner that is `hops` pointers away from its name: the data of one record is a name, a label and then pointers,
    each to the one before."""
    data = FIRST + 11
    chain = b"\1x\0" + pointer(data) + b"".join(pointer(data + 3 + 2 * each) for each in range(hops - 2))
    return response(record(b"\0", 16, chain), record(pointer(data + 3 + 2 * (hops - 2)), 16, b""))


def test_the_longest_chain_of_pointers_that_is_followed() -> None:
    assert read_response(pointer_chain(MAX_HOPS)).answers[1].owner == b"\1x\0"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="empty"),
        pytest.param(response()[:11], id="shorter-than-a-header"),
        pytest.param(response(A_RECORD, flags=0x0180), id="not-a-response"),
        pytest.param(response(A_RECORD, flags=0xA980), id="opcode-update"),
        pytest.param(response(counts="0 0 0 0", question=b""), id="no-question"),
        pytest.param(response(counts="2 0 0 0", question=QUESTION * 2), id="two-questions"),
        pytest.param(response(question=NAME + b"\0\1\0\3"), id="class-chaos"),
        pytest.param(response(question=b"\xc0\x0c\0\1\0\1"), id="compressed-question"),
        pytest.param(response(A_RECORD, counts="1 2 0 0"), id="a-record-is-missing"),
        pytest.param(response(A_RECORD) + b"\0", id="octets-after-the-message"),
        pytest.param(response(A_RECORD)[:-1], id="half-an-address"),
        pytest.param(response(record(b"\xc0\x0c", 1, b"\1\2\3")), id="address-of-three-octets"),
        pytest.param(response(record(b"\xc0\x0c", 28, b"\1\2\3\4")), id="ipv6-address-of-four-octets"),
        pytest.param(response(record(b"\xc0\x0c", 1, b"")), id="address-of-no-octets"),
        pytest.param(response(b"\xc0" + bytes((FIRST,)) + A_RECORD[2:]), id="pointer-to-itself"),
        pytest.param(response(b"\xc0\xff" + A_RECORD[2:]), id="pointer-forward"),
        pytest.param(response(b"\xff\xff" + A_RECORD[2:]), id="pointer-beyond-the-message"),
        pytest.param(response(b"\xc0\x02" + A_RECORD[2:]), id="pointer-into-the-header"),
        pytest.param(response(b"\xc0", counts="1 1 0 0"), id="half-a-pointer"),
        pytest.param(response(b"\x41" + b"a" * 65 + b"\0" + A_RECORD[2:]), id="label-type-01"),
        pytest.param(response(b"\x3f" + b"a" * 63 + (b"\x3f" + b"b" * 63) * 3 + A_RECORD), id="name-over-255-octets"),
        pytest.param(response(record(b"\xc0\x0c", 5, b"\3cdn\0\0")), id="octets-after-an-alias"),
        pytest.param(response(record(b"\xc0\x0c", 5, b"\xc0\x0c")[:-1] + b"\x0c\0"), id="alias-beyond-its-record"),
        pytest.param(response(record(b"\xc0\x0c", 6, b"\0\0" + b"\0" * 19)), id="short-soa"),
        pytest.param(response(record(b"\xc0\x0c", 15, b"\0")), id="mx-without-a-name"),
        pytest.param(response(record(b"\xc0\x0c", 39, b"\xc0\x0c")), id="compressed-dname"),  # RFC 6672 2.5
        pytest.param(response(record(b"\xc0\x0c", 65, b"\0\1\xc0\x0c")), id="compressed-https"),  # RFC 9460 2.2
        pytest.param(response(*[A_RECORD] * (MAX_RECORDS + 1)), id="more-records-than-we-read"),
        pytest.param(
            response(pointer(FIRST + 16) + A_RECORD[2:], record(b"\0", 16, b"")), id="pointer-forward-to-a-good-name"
        ),
        pytest.param(
            response(record((b"\x3c" + b"a" * 60) * 3 + b"\0", 16, b""), record(LONG + pointer(FIRST), 16, b"")),
            id="name-over-255-octets-by-pointer",
        ),
        pytest.param(pointer_chain(MAX_HOPS + 1), id="one-pointer-too-many"),
        pytest.param(pointer_chain(3000), id="thousands-of-pointers"),
    ],
)
def test_what_is_not_a_response(message: bytes) -> None:
    with pytest.raises(MessageError):
        read_response(message)


@pytest.mark.parametrize("rtype", [3, 4, 7, 14, 17, 35], ids=lambda rtype: f"type-{rtype}")
def test_old_types_with_names_in_them_are_left_out(rtype: int) -> None:
    assert read_response(response(record(b"\xc0\x0c", rtype, b"\xc0\x0c"), A_RECORD)).answers == (
        Record(NAME, wire.A, 60, b"\xc0\0\2\1"),
    )


def test_a_truncated_response_holds_nothing_but_its_question() -> None:
    message = read_response(response(A_RECORD[:5], flags=0x8380, counts="1 9 9 9"))
    assert message.truncated
    assert (message.answers, message.authority) == ((), ())


ZONE = """
www.example.com. 60 IN CNAME cdn.example.net.
cdn.example.net. 30 IN A 192.0.2.1
cdn.example.net. 30 IN AAAA 2001:db8::1
example.com. 60 IN MX 10 mail.example.com.
example.com. 60 IN TXT "one" "two"
example.com. 60 IN SOA ns.example.com. host.example.com. 1 2 3 4 5
_sip._tcp.example.com. 60 IN SRV 1 2 5060 sip.example.com.
1.2.0.192.in-addr.arpa. 60 IN PTR host.example.com.
example.com. 60 IN NS ns.example.com.
example.com. 60 IN CAA 0 issue "ca.example"
"""


def test_reading_agrees_with_another_library_and_survives_encoding() -> None:
    """Compressed by dnslib, read by us, encoded by us, read by dnslib: the same records all along."""
    original = dnslib.DNSRecord.question("www.example.com").reply()
    original.add_answer(*dnslib.RR.fromZone(ZONE))
    message = read_response(bytes(original.pack()))
    body, ttls = encode_records(message.answers, message.asked, FIRST)
    rebuilt = struct.pack("!6H", message.id, message.flags, 1, len(message.answers), 0, 0) + QUESTION + body
    assert dnslib.DNSRecord.parse(rebuilt).rr == original.rr
    assert [struct.unpack_from("!I", rebuilt, at)[0] for at in ttls] == [each.ttl for each in original.rr]
    assert read_response(rebuilt) == message


@settings(deadline=None)  # how long it takes on a busy machine proves nothing
@given(st.binary(max_size=600))
def test_garbage_raises_our_error_and_no_other(data: bytes) -> None:
    for message in (data, response(data), b"\0\7\x81\x80" + data):
        try:
            assert isinstance(read_response(message), Message)
        except MessageError:
            continue


@settings(deadline=None)
@given(st.data())
def test_damaged_answers_raise_our_error_and_no_other(data: st.DataObject) -> None:
    original = dnslib.DNSRecord.question("www.example.com").reply()
    original.add_answer(*dnslib.RR.fromZone(ZONE))
    message = bytearray(original.pack())
    for _ in range(data.draw(st.integers(1, 6))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = read_response(bytes(message))
    except MessageError:
        return
    assert all(len(each.owner) <= 255 and each.ttl < 1 << 31 for each in read.answers)


def pointers_into_a_long_name(count: int) -> bytes:
    long = record(b"\1a" * 127 + b"\0", 16, b"")
    return response(long, *[record(pointer(FIRST + 2 * (each % 127)), 16, b"") for each in range(count)])


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(pointer_chain(3000), id="chained-pointers"),
        pytest.param(pointers_into_a_long_name(500), id="500-records-behind-a-long-name"),
        pytest.param(response(*[A_RECORD] * MAX_RECORDS), id="as-many-records-as-we-read"),
        pytest.param(response(*[A_RECORD] * 4000), id="64-kib-of-records"),
        pytest.param(response(b"\x01a" * 30000, counts="1 1 0 0"), id="a-name-without-end"),
    ],
)
def test_crafted_answers_take_a_few_milliseconds_at_most(message: bytes) -> None:
    assert min(_seconds(message) for _ in range(3)) < 0.01


def _seconds(message: bytes) -> float:
    start = time.perf_counter()
    with contextlib.suppress(MessageError):
        read_response(message)
    return time.perf_counter() - start
