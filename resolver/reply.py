"""Replies to clients, built from checked parts and never relayed.

Law: pure functions of values. A reply carries the client's own id and its own spelling of the name; it is never
authoritative, and it never claims to have been validated (AD), because nothing here validates.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from policy.value import Value
from resolver import wire
from resolver.answer import Answer
from resolver.message import RECORD, TO_QUESTION, Record, encode_records
from resolver.wire import HEADER, HEADER_SIZE, Question

DENIED_TTL: Final = 5  # seconds: long enough to end a retry loop, short enough for an edited policy
_EDE_OPTION: Final = 15  # RFC 8914 2
_SOA_NUMBERS: Final = struct.pack("!5I", 1, 3600, 600, 86400, DENIED_TTL)
_HINFO_8482: Final = b"\x07RFC8482\x00"  # RFC 8482 4.2
MAX_TCP: Final = 0xFFFF


class Ede(IntEnum):
    """Extended errors used here (RFC 8914 4)."""

    NOT_READY = 14
    BLOCKED = 15
    NO_REACHABLE_AUTHORITY = 22
    NETWORK_ERROR = 23
    INVALID_DATA = 24


class Reply(Value, frozen=True):
    """A message, and the offsets of the TTLs in it (for whoever sends it again later)."""

    data: bytes
    ttls: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything fitted."""
        return not self.data[2] & wire.TC >> 8


class Explanation(Value, frozen=True):
    """An extended error with a line of text, for a client that speaks EDNS."""

    code: Ede
    text: str

    @property
    def option(self) -> bytes:
        text = self.text.encode()
        return struct.pack("!HHH", _EDE_OPTION, 2 + len(text), self.code) + text


def answered(question: Question, answer: Answer, limit: int) -> Reply:
    """The reply for `answer`, in at most `limit` octets: what does not fit is left out and TC says so."""
    explanation = Explanation(Ede.BLOCKED, "dnsfw: private or special addresses filtered") if answer.filtered else None
    opt = _opt(question, explanation)
    at = HEADER_SIZE + len(question.asked) + wire.TYPE_CLASS.size
    body, ttls = encode_records((*answer.records, *answer.authority), question.asked, at)
    if at + len(body) + len(opt) > limit:
        # nothing rather than half a record set, which no client may use (RFC 2181 9)
        return Reply(_head(question, wire.TC | answer.rcode, (0, 0, len(opt) > 0)) + opt)
    counts = (len(answer.records), len(answer.authority), len(opt) > 0)
    return Reply(_head(question, answer.rcode, counts) + body + opt, ttls)


def denied(question: Question, reason: str) -> bytes:
    """NXDOMAIN with a short SOA (RFC 2308 2.1), so that a program gives up at once and asks again soon."""
    opt = _opt(question, Explanation(Ede.BLOCKED, f"dnsfw: {reason}"))
    soa = wire.wire_name("dnsfw.invalid") + wire.wire_name("nobody.invalid") + _SOA_NUMBERS  # RFC 6761 6.4
    authority = TO_QUESTION + RECORD.pack(wire.SOA, wire.IN, DENIED_TTL, len(soa)) + soa
    return _head(question, wire.NXDOMAIN, (0, 1, len(opt) > 0)) + authority + opt


def failed(question: Question, rcode: int, explanation: Explanation | None = None) -> bytes:
    """An error without any record."""
    opt = _opt(question, explanation)
    return _head(question, rcode, (0, 0, len(opt) > 0)) + opt


def minimal_any(question: Question) -> Answer:
    """What ANY is answered with, without asking anyone (RFC 8482 4.2)."""
    record = Record(question.asked.lower(), wire.HINFO, DENIED_TTL, _HINFO_8482)
    return Answer(wire.NOERROR, (record,), (), (), 0)


def servfail(query: bytes) -> bytes | None:
    """SERVFAIL from nothing but the first octets of a query: what is left to say when our own code broke."""
    if len(query) < HEADER_SIZE:
        return None
    ident, flags = wire.TYPE_CLASS.unpack_from(query)
    return HEADER.pack(ident, wire.QR | wire.RA | flags & wire.RD | wire.SERVFAIL, 0, 0, 0, 0)


def _head(question: Question, flags: int, counts: tuple[int, int, int]) -> bytes:
    flags |= wire.QR | wire.RA | question.flags & (wire.RD | wire.CD)  # RFC 1035 4.1.1, RFC 4035 3.2.2
    fields = HEADER.pack(question.id, flags, 1, *counts)
    return fields + question.asked + wire.TYPE_CLASS.pack(question.qtype, wire.IN)


def _opt(question: Question, explanation: Explanation | None) -> bytes:
    if question.edns is None:
        return b""  # RFC 6891 7
    flags = wire.DO if question.edns.dnssec_ok else 0  # copied, RFC 3225 3
    return wire.opt_record(flags=flags, options=explanation.option if explanation else b"")
