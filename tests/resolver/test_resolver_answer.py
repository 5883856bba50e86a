"""Answer rules: what of a hostile zone's answer reaches the client, and which addresses are bound."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest

from resolver import wire
from resolver.answer import MAX_ADDRESSES, MAX_ALIASES, MAX_TTL, AnswerError, Rights, Wanted, interpret
from resolver.message import Message, Record
from resolver.wire import wire_name

ASKED = "www.example.com"
PUBLIC = "192.0.2.1"


def a(name: str, text: str, ttl: int = 60) -> Record:
    packed = ip_address(text).packed
    return Record(wire_name(name), wire.A if len(packed) == 4 else wire.AAAA, ttl, packed)


def cname(name: str, target: str, ttl: int = 60) -> Record:
    return Record(wire_name(name), wire.CNAME, ttl, wire_name(target))


def soa(name: str, ttl: int = 900, minimum: int = 900) -> Record:
    return Record(wire_name(name), wire.SOA, ttl, b"\0\0" + struct.pack("!5I", 1, 2, 3, 4, minimum))


def message(*answers: Record, authority: tuple[Record, ...] = (), rcode: int = wire.NOERROR) -> Message:
    return Message(1, wire.QR | rcode, wire_name(ASKED), wire.A, answers, authority)


def wanted(qtype: int = wire.A, rights: Rights = Rights(), *, dnssec_ok: bool = False) -> Wanted:  # noqa: B008 frozen
    return Wanted(wire_name(ASKED), qtype, dnssec_ok, rights)


def test_a_chain_is_walked_whatever_the_order_of_its_records() -> None:
    chain = [cname(ASKED, "a.cdn.net", 50), cname("a.cdn.net", "b.cdn.net"), a("b.cdn.net", PUBLIC, 40)]
    answer = interpret(message(*reversed(chain)), wanted())
    assert list(answer.records) == chain
    assert answer.addresses == ((ip_address(PUBLIC), 40.0),)
    assert answer.ttl == 40


@pytest.mark.parametrize(
    "stranger",
    [
        pytest.param(a("victim.example.com", "192.0.2.66"), id="address-of-another-name"),
        pytest.param(a("example.com", "192.0.2.66"), id="address-of-the-parent"),
        pytest.param(cname("victim.example.com", ASKED), id="alias-to-the-asked-name"),
        pytest.param(a(ASKED, "2001:db8::66"), id="another-type-of-the-asked-name"),
        pytest.param(Record(wire_name(ASKED), wire.TXT, 60, b"\1x"), id="text-beside-the-address"),
        pytest.param(Record(wire_name(ASKED), wire.RRSIG, 60, b"\0\1" + b"\0" * 17), id="signature-nobody-asked-for"),
        pytest.param(Record(wire_name("ww.example.com"), wire.DNAME, 60, wire_name("evil.net")), id="unrelated-dname"),
    ],
)
def test_only_records_that_the_question_explains_survive(stranger: Record) -> None:
    for answers in ([stranger, a(ASKED, PUBLIC)], [a(ASKED, PUBLIC), stranger]):
        answer = interpret(message(*answers, authority=(a("ns.example.com", "192.0.2.66"),)), wanted())
        assert answer.records == (a(ASKED, PUBLIC),)
        assert answer.authority == ()
        assert answer.addresses == ((ip_address(PUBLIC), 60.0),)


def test_an_alias_asked_for_by_type_is_an_answer_and_not_followed() -> None:
    answer = interpret(message(cname(ASKED, "cdn.net"), a("cdn.net", PUBLIC)), wanted(wire.CNAME))
    assert answer.records == (cname(ASKED, "cdn.net"),)
    assert answer.addresses == ()


def test_a_dname_moves_the_whole_tree_below_it() -> None:
    dname = Record(wire_name("example.com"), wire.DNAME, 60, wire_name("example.net"))
    answer = interpret(message(dname, a("www.example.net", PUBLIC)), wanted())
    assert answer.records == (dname, cname(ASKED, "www.example.net"), a("www.example.net", PUBLIC))


@pytest.mark.parametrize(
    ("asked", "owner"),
    [
        pytest.param(ASKED, ASKED, id="itself"),  # RFC 6672 2.3: it speaks of what is below it
        pytest.param("x0" + "a" * 48 + ".net", "a" * 48 + ".net", id="octets-that-are-no-labels"),  # 48 is "0"
    ],
)
def test_a_dname_moves_nothing_else(asked: str, owner: str) -> None:
    dname = Record(wire_name(owner), wire.DNAME, 60, wire_name("evil.net"))
    assert wire_name(asked).endswith(wire_name(owner))
    answer = interpret(message(dname, a("evil.net", PUBLIC)), Wanted(wire_name(asked), wire.A))
    assert (answer.records, answer.addresses) == ((), ())


def long_chain(aliases: int) -> Message:
    names = [ASKED, *(f"n{each}.example.com" for each in range(aliases))]
    steps = [cname(name, target) for name, target in pairwise(names)]
    return message(*steps, a(names[-1], PUBLIC))


def test_the_longest_chain_that_is_followed() -> None:
    assert len(interpret(long_chain(MAX_ALIASES), wanted()).records) == MAX_ALIASES + 1


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(message(cname(ASKED, ASKED)), id="alias-of-itself"),
        pytest.param(message(cname(ASKED, "b.net"), cname("b.net", ASKED)), id="loop-of-two"),
        pytest.param(long_chain(MAX_ALIASES + 1), id="one-alias-too-many"),
        pytest.param(message(cname(ASKED, "b.net"), cname(ASKED, "c.net")), id="two-aliases-for-a-name"),
        pytest.param(message(a(ASKED, PUBLIC), rcode=wire.NXDOMAIN), id="address-of-a-name-that-does-not-exist"),
        pytest.param(
            message(Record(wire_name("example.com"), wire.DNAME, 60, wire_name(".".join(["a" * 62] * 4)))),
            id="dname-that-makes-the-name-too-long",
        ),
        pytest.param(
            message(*(a(ASKED, str(ip_address("192.0.2.0") + each)) for each in range(MAX_ADDRESSES + 1))),
            id="more-addresses-than-are-bound",
        ),
    ],
)
def test_what_is_no_answer(hostile: Message) -> None:
    with pytest.raises(AnswerError):
        interpret(hostile, wanted())


SPECIAL = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.8.8.8", "168.63.129.16", "198.18.0.1",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.88.99.1", "192.168.1.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2002:7f00:1::1",
    "2002:808:808::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
]  # fmt: skip
ORDINARY = [
    "1.1.1.1", "8.8.8.8", "100.128.0.1", "172.32.0.1", "192.0.2.1", "198.20.0.1", "198.51.100.1", "203.0.113.1",
    "2001:db8::1", "2001:4860:4860::8888", "2606:50c0::1", "2a00::1",
]  # fmt: skip


@pytest.mark.parametrize("text", SPECIAL)
def test_special_addresses_are_taken_out_unless_the_rule_says_private(text: str) -> None:
    record = a(ASKED, text)
    answer = interpret(message(record), wanted(record.rtype))
    assert (answer.records, answer.addresses, answer.filtered) == ((), (), 1)
    allowed = interpret(message(record), wanted(record.rtype, Rights(private=True)))
    assert allowed.records == (record,)
    assert len(allowed.addresses) == 1


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_addresses_stay(text: str) -> None:
    record = a(ASKED, text)
    answer = interpret(message(record, a(ASKED, "127.0.0.1")), wanted(record.rtype))
    assert answer.records == (record,)
    assert answer.addresses == ((ip_address(text), 60.0),)


def test_a_rule_can_say_where_addresses_must_lie() -> None:
    rights = Rights(within=(ip_network("192.0.2.0/25"),))
    answer = interpret(message(a(ASKED, "192.0.2.1"), a(ASKED, "192.0.2.200")), wanted(rights=rights))
    assert answer.records == (a(ASKED, "192.0.2.1"),)
    assert answer.filtered == 1


def https(*params: tuple[int, bytes], priority: int = 1, target: bytes = b"\0", name: str = ASKED) -> Record:
    body = b"".join(struct.pack("!HH", key, len(value)) + value for key, value in params)
    return Record(wire_name(name), wire.HTTPS, 60, struct.pack("!H", priority) + target + body)


ALPN = (1, b"\2h2")
HINT4 = (4, ip_address(PUBLIC).packed)
HINT6 = (6, ip_address("2001:db8::1").packed)


@pytest.mark.parametrize(
    ("given", "left", "bound"),
    [
        pytest.param([ALPN, HINT4, HINT6], [ALPN, HINT4, HINT6], [PUBLIC, "2001:db8::1"], id="hints-are-bound"),
        pytest.param([ALPN, (5, b"ech-config")], [ALPN], [], id="ech-is-stripped"),
        pytest.param([(4, b"\x7f\0\0\1" + HINT4[1])], [HINT4], [PUBLIC], id="special-hint-of-two"),
        pytest.param([ALPN, (4, b"\x7f\0\0\1")], [ALPN], [], id="special-hint-alone"),
        pytest.param([(6, b"\0" * 10 + b"\xff\xff\x08\x08\x08\x08")], [], [], id="v4-mapped-hint"),
        pytest.param([(0, b"\0\1\0\5"), ALPN, (5, b"ech")], [(0, b"\0\1"), ALPN], [], id="mandatory-follows"),
        pytest.param([(0, b"\0\5"), (5, b"ech")], [], [], id="mandatory-of-nothing-goes"),
        pytest.param(
            [(2, b""), (3, b"\x01\xbb"), (999, b"x")], [(2, b""), (3, b"\x01\xbb"), (999, b"x")], [], id="rest"
        ),
    ],
)
def test_service_records_are_scrubbed(
    given: list[tuple[int, bytes]], left: list[tuple[int, bytes]], bound: list[str]
) -> None:
    answer = interpret(message(https(*given)), wanted(wire.HTTPS))
    assert answer.records == (https(*left),)
    assert [str(each) for each, _ in answer.addresses] == bound


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(https(HINT6, ALPN), id="keys-descend"),
        pytest.param(https(ALPN, ALPN), id="a-key-twice"),
        pytest.param(https((4, b"\1\2\3")), id="half-a-hint"),
        pytest.param(https((4, b"")), id="no-hint-in-a-hint"),
        pytest.param(https((0, b"\0")), id="half-a-mandatory-key"),
        pytest.param(Record(wire_name(ASKED), wire.HTTPS, 60, b"\0\1\0\0\4\0\xff\1"), id="value-beyond-the-record"),
        pytest.param(Record(wire_name(ASKED), wire.HTTPS, 60, b"\0\1\0\0\4"), id="half-a-key"),
    ],
)
def test_malformed_service_records_are_left_out(record: Record) -> None:
    answer = interpret(message(record, https(ALPN)), wanted(wire.HTTPS))
    assert answer.records == (https(ALPN),)


def test_a_service_alias_loses_parameters_that_it_must_not_have() -> None:
    answer = interpret(message(https(HINT4, priority=0, target=wire_name("cdn.net"))), wanted(wire.HTTPS))
    assert answer.records == (https(priority=0, target=wire_name("cdn.net")),)
    assert answer.addresses == ()


@pytest.mark.parametrize(
    ("records", "ttl"),
    [
        pytest.param([a(ASKED, PUBLIC, 0)], 0, id="zero-is-not-kept"),
        pytest.param([a(ASKED, PUBLIC, 0x7FFFFFFF)], MAX_TTL, id="years-are-capped"),
        pytest.param([a(ASKED, PUBLIC, 50), a(ASKED, "192.0.2.2", 20)], 20, id="the-shortest-counts"),
        pytest.param([cname(ASKED, "b.net", 5), a("b.net", PUBLIC, 50)], 5, id="an-alias-counts"),
    ],
)
def test_how_long_an_answer_may_be_kept(records: list[Record], ttl: int) -> None:
    answer = interpret(message(*records), wanted())
    assert answer.ttl == ttl
    assert all(record.ttl <= MAX_TTL for record in answer.records)
    assert all(seconds == ttl for _, seconds in answer.addresses)


@pytest.mark.parametrize(
    ("authority", "ttl"),
    [
        pytest.param([soa("example.com", 900, 30)], 30, id="minimum-of-the-zone"),
        pytest.param([soa("example.com", 20, 900)], 20, id="ttl-of-the-record"),
        pytest.param([soa("com", 90000, 90000)], 300, id="capped"),
        pytest.param([soa("example.net")], 0, id="another-zone's"),
        pytest.param([soa("ample.com")], 0, id="suffix-of-octets-not-of-labels"),
        pytest.param([], 0, id="none"),
    ],
)
@pytest.mark.parametrize("rcode", [wire.NOERROR, wire.NXDOMAIN], ids=["no-such-type", "no-such-name"])
def test_negative_answers_live_as_long_as_their_zone_says(authority: list[Record], ttl: int, rcode: int) -> None:
    answer = interpret(message(authority=tuple(authority), rcode=rcode), wanted())
    assert (answer.rcode, answer.ttl) == (rcode, ttl)
    assert [record.ttl for record in answer.authority] == ([ttl] if ttl else [])


def test_signatures_pass_for_a_client_that_checks_them() -> None:
    good = Record(wire_name(ASKED), wire.RRSIG, 60, b"\0\1" + b"\0" * 17)
    other = Record(wire_name(ASKED), wire.RRSIG, 60, b"\0\x10" + b"\0" * 17)
    stranger = good.but(owner=wire_name("example.com"))
    answer = interpret(message(a(ASKED, PUBLIC), good, other, stranger), wanted(dnssec_ok=True))
    assert answer.records == (a(ASKED, PUBLIC), good)
