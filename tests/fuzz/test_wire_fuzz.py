"""Two readers of DNS messages, ours and dnspython: what both accept means the same, and both accept the honest."""

from __future__ import annotations

from collections.abc import Callable

import dns.edns
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rrset
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.fuzz_wire import one

LABELS = st.sampled_from(["www", "WwW", "a", "_dns", "example", "Com", "x" * 63, "xn--nxasmq6b"])
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(lambda labels: dns.name.from_text(".".join(labels) + "."))
NUMBERS = st.integers(0, 65535)
TTLS = st.one_of(st.integers(0, 100_000), st.integers(0, (1 << 31) - 1))

DATA: dict[str, Callable[[dns.name.Name, int], str]] = {
    "A": lambda _, number: f"192.0.2.{number & 255}",
    "AAAA": lambda _, number: f"2001:db8::{number:x}",
    "NS": lambda name, _: str(name),
    "CNAME": lambda name, _: str(name),
    "PTR": lambda name, _: str(name),
    "DNAME": lambda name, _: str(name),
    "MX": lambda name, number: f"{number} {name}",
    "SRV": lambda name, number: f"{number} {number} {number} {name}",
    "SOA": lambda name, number: f"{name} {name} {number} 2 3 4 {number}",
    "TXT": lambda name, number: f'"{name}" "{number}"',
    "HTTPS": lambda name, number: f"{number or 1} {name} alpn=h2 ipv4hint=192.0.2.1",
    "NSEC": lambda name, _: f"{name} A MX RRSIG",
    "RRSIG": lambda name, number: f"A 8 2 60 20300101000000 20200101000000 {number} {name} AAAA",
    "CAA": lambda name, _: f'0 issue "{name}"',
}


@st.composite
def rrsets(draw: st.DrawFn) -> dns.rrset.RRset:
    kind = draw(st.sampled_from([*DATA]))
    return dns.rrset.from_text(draw(NAMES), draw(TTLS), "IN", kind, DATA[kind](draw(NAMES), draw(NUMBERS)))


def options(draw: st.DrawFn) -> list[dns.edns.Option]:
    chosen = draw(st.lists(st.tuples(st.sampled_from([3, 10, 12]), st.binary(min_size=8, max_size=8)), max_size=3))
    return [dns.edns.GenericOption(dns.edns.OptionType(code), data) for code, data in chosen]


@st.composite
def queries(draw: st.DrawFn) -> bytes:
    asked = dns.message.make_query(draw(NAMES), draw(st.sampled_from(["A", "AAAA", "TXT", "HTTPS", "ANY"])))
    asked.id = draw(NUMBERS)
    if draw(st.booleans()):
        asked.use_edns(0, ednsflags=draw(NUMBERS), payload=draw(NUMBERS), options=options(draw))
    return asked.to_wire()


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    asked = dns.message.make_query(draw(NAMES), draw(st.sampled_from([*DATA])), use_edns=draw(st.sampled_from([-1, 0])))
    reply = dns.message.make_response(asked)
    if asked.edns >= 0:
        reply.use_edns(0, payload=draw(NUMBERS), options=options(draw))
    rcodes = ["NOERROR", "SERVFAIL", "NXDOMAIN", "REFUSED"] + ["BADVERS", "BADCOOKIE"] * (asked.edns >= 0)
    reply.set_rcode(dns.rcode.from_text(draw(st.sampled_from(rcodes))))
    reply.answer = draw(st.lists(rrsets(), max_size=6))
    reply.authority = draw(st.lists(rrsets(), max_size=2))
    reply.additional = draw(st.lists(rrsets(), max_size=2))
    return reply.to_wire(max_size=65535)


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """A few octets changed, taken out or put in, anywhere behind the id."""
    data = bytearray(draw(messages))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(2, len(data) - 1))
        new = draw(st.sampled_from([b"", b"\0", b"\1", b"\xc0\x0c", b"\xc0", b"\x40", b"\xff", b"\x80", b"\3www"]))
        data[at : at + draw(st.integers(0, 2))] = new
    return bytes(data)


@given(queries())
@settings(max_examples=200)
def test_an_honest_query_is_one_to_both(data: bytes) -> None:
    assert one(data) == (True, False)


@given(responses())
@settings(max_examples=200)
def test_an_honest_response_is_one_to_both(data: bytes) -> None:
    assert one(data) == (False, True)


@given(damaged(queries()))
@settings(max_examples=400)
def test_a_damaged_query_means_the_same_to_both_or_is_refused(data: bytes) -> None:
    one(data)


@given(damaged(responses()))
@settings(max_examples=400)
def test_a_damaged_response_means_the_same_to_both_or_is_refused(data: bytes) -> None:
    one(data)


RESPONSE = bytes.fromhex("0007 8180 0001 0001 0000 0000")  # a header of one question and one answer


@given(st.one_of(st.binary(max_size=600), st.binary(max_size=60).map(lambda rest: RESPONSE + rest)))
@settings(max_examples=300)
def test_any_octets_break_no_promise(data: bytes) -> None:
    one(data)
