"""A fuzz target for DNS messages, with dnspython as the second reader: what both accept means the same to both.

`python tests/fuzz/fuzz_wire.py [-max_total_time=60]` drives it by coverage, with atheris, as `fuzz_policy.py`. pytest
feeds it hypothesis' messages: honest ones, honest ones with a few octets changed, and any octets.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name

from resolver import wire
from resolver.answer import AnswerError, Wanted, interpret
from resolver.message import Message, MessageError, Record, read_response
from resolver.reply import MAX_TCP, answered
from resolver.wire import Question, Rejection, read_query
from tests.fuzz.driver import drive

_OMITTED = {3, 4, 7, 8, 9, 14, 17, 18, 21, 24, 26, 30, 35, 36, 38}  # those that our answers leave out
_WITH_NAMES = {wire.NS, wire.CNAME, wire.PTR, wire.SOA, wire.MX, wire.SRV, wire.DNAME}
_COMPARED = _WITH_NAMES | {wire.A, wire.AAAA, wire.TXT}  # types whose data dnspython writes as it read it

type Facts = tuple[bytes, int, int, bytes]  # of a record: owner, type, TTL, data


def one(data: bytes) -> tuple[bool, bool]:
    """Whether both readers took these octets for a query, for a response. Whatever breaks a promise raises."""
    theirs = _theirs(data)
    return _query(data, theirs), _response(data, theirs)


def _theirs(data: bytes) -> dns.message.Message | None:
    """As dnspython reads it, to the last octet; None for what it refuses."""
    try:
        return dns.message.from_wire(data, one_rr_per_rrset=True)
    except dns.exception.DNSException:
        return None


def _query(data: bytes, theirs: dns.message.Message | None) -> bool:
    ours = read_query(data)
    if isinstance(ours, Rejection):
        assert read_query(ours.reply) is None, "a refusal is a response, which nobody answers"
    if not isinstance(ours, Question) or theirs is None:
        return False
    [asked] = theirs.question
    assert (ours.id, ours.flags & wire.CD) == (theirs.id, theirs.flags & dns.flags.CD)
    assert ours.asked == asked.name.to_wire()
    assert ours.name == asked.name.to_text(omit_final_dot=True).lower() or ours.asked == b"\0"
    assert (ours.qtype, wire.IN) == (asked.rdtype, asked.rdclass)
    assert (ours.edns is None) == (theirs.edns < 0)
    if ours.edns is not None:
        assert (ours.edns.size, ours.edns.dnssec_ok) == (theirs.payload, bool(theirs.ednsflags & dns.flags.DO))
    return True


def _response(data: bytes, theirs: dns.message.Message | None) -> bool:
    try:
        ours = read_response(data)
    except MessageError:
        return False
    assert len(ours.answers) + len(ours.authority) <= 512
    if theirs is None:
        return False
    [asked] = theirs.question
    assert (ours.id, ours.asked, ours.qtype) == (theirs.id, asked.name.to_wire(), asked.rdtype)
    if ours.truncated:
        assert theirs.flags & dns.flags.TC
        return True
    assert ours.rcode == theirs.rcode()
    assert [_facts(each) for each in ours.answers] == _their_facts(theirs.answer)
    assert [_facts(each) for each in ours.authority] == _their_facts(theirs.authority)
    cookies = [option.to_wire() for option in theirs.options if option.otype == dns.edns.OptionType.COOKIE]
    assert ours.cookie == (cookies[0] if cookies else None)
    _passed_on(ours)
    return True


def _facts(record: Record) -> Facts:
    return record.owner, record.rtype, record.ttl, record.data if record.rtype in _COMPARED else b""


def _their_facts(section: list[dns.rrset.RRset]) -> list[Facts]:
    """In lower case where we lower it: in names."""
    found = []
    for rrset in section:
        if rrset.rdclass != wire.IN or rrset.rdtype in _OMITTED:
            continue
        [rdata] = rrset
        data = rdata.to_wire() if rrset.rdtype in _COMPARED else b""
        ttl = rrset.ttl if rrset.ttl < 1 << 31 else 0
        found.append(((rrset.name.to_wire() or b"").lower(), int(rrset.rdtype), ttl, _lowered(rrset.rdtype, data)))
    return found


def _lowered(rtype: int, data: bytes) -> bytes:
    """Only names: the numbers of an SOA, a preference or a port could be letters."""
    if rtype not in _WITH_NAMES:
        return data
    head = {wire.MX: 2, wire.SRV: 6}.get(rtype, 0)
    tail = len(data) - 20 if rtype == wire.SOA else len(data)
    return data[:head] + data[head:tail].lower() + data[tail:]


def _passed_on(message: Message) -> None:
    """What a client would get of it can be read by the other library too."""
    try:
        answer = interpret(message, Wanted(message.asked.lower(), message.qtype, dnssec_ok=True))
    except AnswerError:
        return
    question = Question(7, wire.RD, wire.canonical(message.asked), message.asked, message.qtype, None)
    read = dns.message.from_wire(answered(question, answer, MAX_TCP).data, one_rr_per_rrset=True)
    assert (read.id, read.question[0].name.to_wire()) == (7, message.asked)
    assert len(read.answer) == len(answer.records) or read.flags & dns.flags.TC


if __name__ == "__main__":
    drive(one)
