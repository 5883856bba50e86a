"""The attacker's messages: each lie is the one that was ordered, and what is not ordered is honest."""

from __future__ import annotations

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsfw.poison.messages import Arrived, compose, fill, honest, read_question
from dnsfw.poison.scenario import Packet, Reaction, Series
from dnsfw.poison.upstream import Script

ZONE = "z.example."
PEER = ("127.0.0.1", 4000)


def question(name: str = "WwW.z.example", qtype: str = "A") -> Arrived:
    asked = dnslib.DNSRecord.question(name, qtype)
    asked.add_ar(dnslib.EDNS0(udp_len=1232))
    arrived = read_question(bytes(asked.pack()), PEER, "udp")
    assert arrived is not None
    return arrived


def read(packet: Packet) -> dnslib.DNSRecord:
    return dnslib.DNSRecord.parse(compose(packet, question(), ZONE))


def test_a_question_is_read_with_its_case_and_size() -> None:
    arrived = question()
    assert (arrived.name, arrived.text, arrived.qtype, arrived.edns) == (
        b"\3WwW\1z\7example\0", "www.z.example.", 1, 1232,
    )  # fmt: skip


@given(st.binary(max_size=80))
def test_any_octets_are_a_question_or_none(data: bytes) -> None:
    arrived = read_question(data, PEER, "udp")
    if arrived is not None:
        assert arrived.name in data


def test_what_is_not_ordered_is_honest() -> None:
    arrived = question()
    reply = dnslib.DNSRecord.parse(compose(Packet(answer=("www 60 A 192.0.2.1",)), arrived, ZONE))
    assert (reply.header.id, reply.header.qr, reply.header.rcode, reply.header.tc) == (arrived.id, 1, 0, 0)
    assert str(reply.q.qname) == "WwW.z.example."
    assert [(str(rr.rname), str(rr.rdata)) for rr in reply.rr] == [("WwW.z.example.", "192.0.2.1")]


@pytest.mark.parametrize(("qtype", "data"), [("A", ["198.51.100.1"]), ("AAAA", ["2001:db8::1"]), ("TXT", [])])
def test_the_honest_answer(qtype: str, data: list[str]) -> None:
    reply = dnslib.DNSRecord.parse(honest(question(qtype=qtype)))
    assert [str(rr.rdata) for rr in reply.rr] == data


def test_lies_in_the_header_and_the_question() -> None:
    assert read(Packet(id="wrong")).header.id != question().id
    assert read(Packet(response=False)).header.qr == 0
    assert read(Packet(opcode=4)).header.opcode == 4
    assert read(Packet(truncated=True)).header.tc == 1
    assert read(Packet(rcode="NXDOMAIN")).header.rcode == 3
    assert str(read(Packet(question="evil")).q.qname) == "evil.z.example."
    assert read(Packet(qtype="AAAA")).q.qtype == 28
    assert read(Packet(qclass=3)).q.qclass == 3
    assert compose(Packet(case="swapped"), question(), ZONE)[12:16] == b"\3wWw"
    assert compose(Packet(flood="ids"), question(), ZONE, 7)[:16] == b"\0\7\x81\x80\0\1\0\0\0\0\0\0\3www"
    assert read(Packet(questions=0, answer=("www 60 A 192.0.2.1",))).questions == []


def test_sections_series_and_edges() -> None:
    whole = compose(Packet(answer=("www 60 A 192.0.2.1",)), question(), ZONE)
    assert compose(Packet(answer=("www 60 A 192.0.2.1",), cut=3), question(), ZONE)[2:] == whole[2:-3]
    assert compose(Packet(answer=("www 60 A 192.0.2.1",), pad=2), question(), ZONE)[2:] == whole[2:] + b"\0\0"
    many = read(
        Packet(
            answer=(Series(300, "www 60 A 45.0.{a}.{b}"),), authority=("@ 1 NS ns",), additional=("ns 1 A 192.0.2.2",)
        )
    )
    assert (len(many.rr), str(many.rr[299].rdata), len(many.auth), len(many.ar)) == (300, "45.0.1.43", 1, 1)


def test_raw_octets() -> None:
    assert fill("{id} 3x41 00{name}", 0x1234, b"", b"\1z\0") == b"\x12\x34AAA\0\1z\0"
    with pytest.raises(ValueError, match="hexadecimal"):
        fill("xyz", 1, b"", b"")


def test_the_first_fitting_reaction_is_taken_and_counted_by_its_kind() -> None:
    first, later = Reaction(name="www", nth=1), Reaction(name="www")
    script = Script([first, later, Reaction(type="AAAA", over="tcp", hang_up=True)], ZONE)
    assert [script.reaction(question()) for _ in range(3)] == [first, later, later]
    assert script.reaction(question("other.z.example")) is None
    assert script.reaction(question("other.z.example", "AAAA")) is None
