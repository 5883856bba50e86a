"""The wire gate: bytes of a DNS question in, a `Question` or a refusal out.

Law: pure functions of bytes. Every check stands beside the section that asks for it. Any byte string at all ends
in one of three ways (a question, a prompt refusal, silence), raises nothing and takes less than a millisecond.
Nothing that was not understood here reaches another module, or the wire upstream.
"""

from __future__ import annotations

import string
import struct
from typing import Final

from policy.value import Value

HEADER: Final = struct.Struct("!6H")  # id, flags, QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT (RFC 1035 4.1.1)
HEADER_SIZE: Final = HEADER.size
TYPE_CLASS: Final = struct.Struct("!HH")
OPT_FIXED: Final = struct.Struct("!BHHBBHH")  # root, OPT, size, extended rcode, version, flags, length (RFC 6891 6.1.2)

QR: Final = 0x8000
OPCODE: Final = 0x7800
AA: Final = 0x0400
TC: Final = 0x0200
RD: Final = 0x0100
RA: Final = 0x0080
AD: Final = 0x0020
CD: Final = 0x0010
RCODE: Final = 0x000F
DO: Final = 0x8000  # in the flags of an OPT record (RFC 3225 3)

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)  # RFC 1035 4.1.1
BADVERS: Final = 16  # RFC 6891 9
BADCOOKIE: Final = 23  # RFC 7873 8

A, NS, CNAME, SOA, NULL, PTR, HINFO, MX, TXT, AAAA, SRV = 1, 2, 5, 6, 10, 12, 13, 15, 16, 28, 33
DNAME, OPT, RRSIG, NSEC, NSEC3, SVCB, HTTPS, ANY = 39, 41, 46, 47, 50, 64, 65, 255
IN: Final = 1

MAX_NAME: Final = 255  # octets, root and length octets counted (RFC 1035 2.3.4)
MAX_LABEL: Final = 63  # RFC 1035 2.3.4
MAX_QUERY: Final = 2048  # our own bound: header, one name and an OPT record with room for padding (RFC 7830)
CLASSIC_SIZE: Final = 512  # an answer over UDP without EDNS (RFC 1035 2.3.4)
OWN_SIZE: Final = 1232  # our EDNS size in both directions: no fragmentation on any sane path (RFC 9715 3.2)

# Letters, digits, hyphen (RFC 1123 2.1) and the underscore of service names (RFC 8552). A policy can name nothing
# else, and a label with a dot or a control character in it would read as another name once it is text.
_NAMEABLE: Final = (string.ascii_letters + string.digits + "-_").encode()


class Edns(Value, frozen=True):
    """What a client said in its OPT record. `size` is its UDP payload size in octets, as sent."""

    size: int
    dnssec_ok: bool


class Question(Value, frozen=True):
    """One well-formed question.

    `name` is canonical (lower case, no trailing dot, "" is the root); `asked` is the same name as the client wrote
    it, in wire form; `flags` are the header flags as sent.
    """

    id: int
    flags: int
    name: str
    asked: bytes
    qtype: int
    edns: Edns | None

    @property
    def checking_disabled(self) -> bool:
        return bool(self.flags & CD)

    @property
    def dnssec_ok(self) -> bool:
        return self.edns is not None and self.edns.dnssec_ok

    @property
    def udp_size(self) -> int:
        """Octets that fit one UDP reply: at least 512 (RFC 6891 6.2.3), never more than we let travel."""
        return CLASSIC_SIZE if self.edns is None else min(max(self.edns.size, CLASSIC_SIZE), OWN_SIZE)


class Rejection(Value, frozen=True):
    """A message that gets no further than this gate; `reply` is its complete answer."""

    rcode: int
    reply: bytes


class _ReadError(ValueError):
    """The message ends too early, or a field in it can't be."""


def read_query(wire: bytes) -> Question | Rejection | None:
    """What a client sent, as a question; a ready refusal; or None where any reply would be wrong."""
    if len(wire) < HEADER_SIZE or wire[2] & QR >> 8:
        # no id to answer to; or a response, and two servers would answer each other for ever (RFC 1035 4.1.1)
        return None
    ident, flags, questions, answers, authority, additional = HEADER.unpack_from(wire)
    if flags & OPCODE:
        return _reject(wire, NOTIMP)  # QUERY is the only opcode here (RFC 1035 4.1.1)
    if len(wire) > MAX_QUERY or flags & TC or questions != 1 or answers or authority or additional > 1:
        return _reject(wire, FORMERR)  # exactly one question (RFC 9619 4), nothing answered, at most an OPT
    try:
        asked, end = read_flat_name(wire, HEADER_SIZE)
        qtype, qclass = TYPE_CLASS.unpack_from(wire, end)
        end += TYPE_CLASS.size
        version, edns = _read_additional(wire, end, additional)
    except (_ReadError, struct.error):  # the latter where the message ends inside a field
        return _reject(wire, FORMERR)
    labels = _labels(asked)
    question = Question(ident, flags, _text(labels), asked, qtype, edns)
    if version or qclass != IN or refused_type(qtype) or not _nameable(labels):
        return _refuse_kind(wire[HEADER_SIZE:end], question, version)
    return question


def _refuse_kind(section: bytes, question: Question, version: int) -> Rejection:
    """Well-formed, but not a question that this server will ever take upstream."""
    if version:
        return _reject_parsed(question, section, BADVERS)  # RFC 6891 6.1.3
    if question.qtype == OPT:
        return _reject_parsed(question, section, FORMERR)  # a pseudo-type lives in no zone (RFC 6891 6.1.1)
    return _reject_parsed(question, section, REFUSED)


def refused_type(qtype: int) -> bool:
    """Types never forwarded: reserved 0, NULL, the pseudo-type OPT, and the meta range 128-255 but ANY (RFC 6895 3.1).

    The range holds AXFR and IXFR (a transfer is no look-up) and TKEY and TSIG.
    """
    return qtype in (0, NULL, OPT) or 128 <= qtype < ANY


def _nameable(labels: list[bytes]) -> bool:
    """Whether each is made of characters that a policy could name."""
    return not b"".join(labels).translate(None, _NAMEABLE)


def canonical(flat: bytes) -> str:
    """The text of a flat wire name: lower case, dots between labels, none at the end; "" is the root."""
    return _text(_labels(flat))


def _text(labels: list[bytes]) -> str:
    return b".".join(labels).lower().decode("latin-1")


def _labels(flat: bytes) -> list[bytes]:
    labels, at = [], 0
    while length := flat[at]:
        labels.append(flat[at + 1 : at + 1 + length])
        at += 1 + length
    return labels


def wire_name(name: str) -> bytes:
    """The flat wire form of a canonical name.

    Raises ValueError for an empty or over-long label, an over-long name, or text that is not ASCII.
    """
    labels = name.encode("ascii").split(b".") if name else []
    if any(not 0 < len(label) <= MAX_LABEL for label in labels):
        raise ValueError(f"not a domain name: {name!r}")
    flat = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(flat) > MAX_NAME:
        raise ValueError(f"a domain name longer than {MAX_NAME} octets: {name!r}")
    return flat


def read_flat_name(wire: bytes, at: int) -> tuple[bytes, int]:
    """A name without compression, as sent, and the offset after it.

    A question comes first in its message, so there is nothing a pointer could honestly point at (RFC 1035 4.1.4).
    """
    start, size = at, len(wire)
    while at < size:
        length = wire[at]
        at += 1 + length
        if length == 0:
            if at - start > MAX_NAME:
                break
            return wire[start:at], at
        if length > MAX_LABEL:
            break  # a pointer, or one of the label types 01 and 10 that nobody uses (RFC 6891 5)
    raise _ReadError("a name that does not end, is too long or is compressed")


def _read_additional(wire: bytes, at: int, count: int) -> tuple[int, Edns | None]:
    """The EDNS version and what the OPT record says: it is all that may follow a question, to the last octet."""
    if not count:
        if at != len(wire):
            raise _ReadError("octets after the message: somebody else reads it differently")
        return 0, None
    root, rtype, size, _, version, flags, length = OPT_FIXED.unpack_from(wire, at)
    at += OPT_FIXED.size
    if root or rtype != OPT or at + length != len(wire):
        raise _ReadError("the additional record is not an OPT at the root (RFC 6891 6.1.2)")
    while at < len(wire):  # options must fill RDLENGTH exactly (RFC 6891 6.1.2)
        _, length = TYPE_CLASS.unpack_from(wire, at)
        at += TYPE_CLASS.size + length
    if at != len(wire):
        raise _ReadError("an EDNS option longer than its record")
    return version, Edns(size, bool(flags & DO))


def _reject(wire: bytes, rcode: int) -> Rejection:
    """A bare header: what could not be read is not repeated. Opcode and RD are copied (RFC 1035 4.1.1)."""
    ident, flags = TYPE_CLASS.unpack_from(wire)
    return Rejection(rcode, HEADER.pack(ident, QR | flags & (OPCODE | RD) | rcode, 0, 0, 0, 0))


def _reject_parsed(question: Question, section: bytes, rcode: int) -> Rejection:
    flags = QR | RA | question.flags & (RD | CD) | rcode & RCODE
    additional = opt_record(rcode) if question.edns else b""  # an OPT only to one who sent one (RFC 6891 7)
    return Rejection(rcode, HEADER.pack(question.id, flags, 1, 0, 0, len(additional) > 0) + section + additional)


def opt_record(rcode: int = NOERROR, flags: int = 0, options: bytes = b"") -> bytes:
    """Our OPT record: size 1232, version 0, the high bits of `rcode` (RFC 6891 6.1.3)."""
    return OPT_FIXED.pack(0, OPT, OWN_SIZE, rcode >> 4, 0, flags, len(options)) + options
