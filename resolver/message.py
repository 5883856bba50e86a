"""Upstream messages: hostile bytes in, checked records out, and records back to bytes.

Law: pure functions of bytes, with the strictness of `wire` for answers. Work is bounded by the caps below whatever
the bytes say. Names come out flat and in lower case, in the record data too: a compressed name may borrow letters
from our own question, whose case is a secret (see `exchange`).
"""

from __future__ import annotations

import struct
from typing import Final

from policy.value import Value
from resolver import wire
from resolver.cookies import OPTION as COOKIE
from resolver.wire import HEADER, HEADER_SIZE, MAX_LABEL, MAX_NAME, TYPE_CLASS

RECORD: Final = struct.Struct("!HHIH")  # type, class, TTL, RDLENGTH (RFC 1035 4.1.3)
POINTER: Final = 0xC0  # the two high bits of a compression pointer (RFC 1035 4.1.4)
TO_QUESTION: Final = b"\xc0\x0c"  # a pointer to the name in the question, right after the header
MAX_HOPS: Final = 16  # pointers within one name: an honest encoder needs one, a crafted message thousands
MAX_RECORDS: Final = 512  # in all sections together; an answer over UDP at our size has room for about 75

# Record data that holds names: how many octets stand before the names, how many names, and whether compression is
# allowed in them. It is for the types of RFC 1035 alone (RFC 3597 4); receivers are also to expect it in SRV.
_NAMES_IN: Final[dict[int, tuple[int, int, bool]]] = {
    wire.NS: (0, 1, True),
    wire.CNAME: (0, 1, True),
    wire.PTR: (0, 1, True),
    wire.SOA: (0, 2, True),
    wire.MX: (2, 1, True),
    wire.SRV: (6, 1, True),
    wire.DNAME: (0, 1, False),  # RFC 6672 2.5
    wire.SVCB: (2, 1, False),  # RFC 9460 2.2
    wire.HTTPS: (2, 1, False),
    wire.RRSIG: (18, 1, False),  # RFC 4034 3.1.7
    wire.NSEC: (0, 1, False),  # RFC 4034 4.1.1
}
_FIXED_SIZE: Final = {wire.A: 4, wire.AAAA: 16}  # RFC 1035 3.4.1, RFC 3596 2.2
_SOA_NUMBERS: Final = 20  # serial, refresh, retry, expire, minimum (RFC 1035 3.3.13)
# Old types with compressible names that nothing current uses: MD MF MB MG MR MINFO RP AFSDB RT PX NXT SIG NAPTR KX A6.
# Their data can't be passed on unread (a pointer would point into our message), so they are left out of every answer.
_OMITTED: Final = frozenset({3, 4, 7, 8, 9, 14, 17, 18, 21, 24, 26, 30, 35, 36, 38})


class MessageError(ValueError):
    """Bytes that are not one well-formed DNS response."""


class Record(Value, frozen=True):
    """One resource record of class IN. `owner` is a flat, lower-case wire name; `ttl` is in seconds; names in
    `data` are flat and lower-case too."""

    owner: bytes
    rtype: int
    ttl: int
    data: bytes


class Message(Value, frozen=True):
    """One checked response. `asked` is the question's name with its case, as the server returned it; `cookie` is the
    data of its COOKIE option, `extended` the high bits of its rcode. Additional records are checked for form and then
    dropped, since nothing here ever believes one."""

    id: int
    flags: int
    asked: bytes
    qtype: int
    answers: tuple[Record, ...]
    authority: tuple[Record, ...]
    cookie: bytes | None = None
    extended: int = 0

    @property
    def rcode(self) -> int:
        return self.extended << 4 | self.flags & wire.RCODE  # RFC 6891 6.1.3

    @property
    def truncated(self) -> bool:
        return bool(self.flags & wire.TC)


def read_response(data: bytes) -> Message:
    """The one response in `data`. Raises MessageError, and nothing else, for any other bytes."""
    if len(data) < HEADER_SIZE:
        raise MessageError("shorter than a header")
    ident, flags, questions, answers, authority, additional = HEADER.unpack_from(data)
    if not flags & wire.QR or flags & wire.OPCODE or questions != 1:
        raise MessageError("not a response to one QUERY (RFC 1035 4.1.1)")
    if answers + authority + additional > MAX_RECORDS:
        raise MessageError(f"more than {MAX_RECORDS} records")
    reader = _Reader(data)
    try:
        asked, qtype = reader.question()
        if flags & wire.TC:  # what came with it is no answer (RFC 2181 9); only header and question count
            return Message(ident, flags, asked, qtype, (), ())
        kept = reader.records(answers) if answers else ()
        referred = reader.records(authority) if authority else ()
        reader.edns_may_come = True  # here and nowhere before (RFC 6891 6.1.1)
        if additional:
            reader.records(additional)
    except struct.error:
        raise MessageError("the message ends inside a field") from None
    if reader.at != len(data):
        raise MessageError("octets after the message")
    return Message(ident, flags, asked, qtype, kept, referred, reader.cookie, reader.extended)


class _Reader:
    """A cursor over one message. Each name that a pointer can lead to is read once and remembered."""

    __slots__ = ("at", "cookie", "data", "edns_may_come", "extended", "known")

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, HEADER_SIZE
        self.known: dict[int, bytes] = {}
        self.edns_may_come = False
        self.cookie: bytes | None = None
        self.extended = 0

    def question(self) -> tuple[bytes, int]:
        try:
            asked, self.at = wire.read_flat_name(self.data, self.at)
        except ValueError as error:
            raise MessageError(str(error)) from None
        self.known[HEADER_SIZE] = asked.lower()
        qtype, qclass = TYPE_CLASS.unpack_from(self.data, self.at)
        self.at += TYPE_CLASS.size
        if qclass != wire.IN:
            raise MessageError("a question of another class")
        return asked, qtype

    def records(self, count: int) -> tuple[Record, ...]:
        """Those of use among the next so many. Raises struct.error where the message ends inside a field."""
        return tuple([record for _ in range(count) if (record := self._record()) is not None])

    def _record(self) -> Record | None:
        """The next record; None for one that is well-formed and of no use (OPT, another class, an omitted type)."""
        owner = self._name(compressed=True)
        rtype, rclass, ttl, length = RECORD.unpack_from(self.data, self.at)
        self.at += RECORD.size
        end = self.at + length
        if end > len(self.data):
            raise MessageError("record data beyond the message")
        if rtype == wire.OPT:
            self._edns(owner, ttl, end)
            return None
        if rclass != wire.IN or rtype in _OMITTED:
            self.at = end
            return None
        data = self._record_data(rtype, end)
        return Record(owner, rtype, ttl if ttl < 1 << 31 else 0, data)  # RFC 2181 8: a high bit means zero

    def _edns(self, owner: bytes, ttl: int, end: int) -> None:
        """The OPT record: one at most, at the root, its options to the last octet (RFC 6891 6.1.1, 6.1.2)."""
        if owner != b"\0" or not self.edns_may_come:
            raise MessageError("an OPT record where none may be")
        self.edns_may_come = False
        self.extended = ttl >> 24
        while self.at < end:
            code, length = TYPE_CLASS.unpack_from(self.data, self.at)
            self.at += TYPE_CLASS.size
            if self.at + length > end:
                raise MessageError("an EDNS option longer than its record")
            if code == COOKIE and self.cookie is None:
                self.cookie = self.data[self.at : self.at + length]
            self.at += length
        if self.at != end:
            raise MessageError("an EDNS option longer than its record")

    def _record_data(self, rtype: int, end: int) -> bytes:
        start = self.at
        if rtype not in _NAMES_IN:
            if end - start != _FIXED_SIZE.get(rtype, end - start):
                raise MessageError("an address of the wrong size")
            self.at = end
            return self.data[start:end]
        before, names, compressed = _NAMES_IN[rtype]
        self.at += before
        parts = [self.data[start : self.at]] + [self._name(compressed=compressed) for _ in range(names)]
        rest = end - self.at
        if rest < 0 or (rtype == wire.SOA and rest != _SOA_NUMBERS) or (rest and compressed and rtype != wire.SOA):
            raise MessageError("names that don't fill their record data")
        parts.append(self.data[self.at : end])
        self.at = end
        return b"".join(parts)

    def _name(self, *, compressed: bool) -> bytes:
        """The name at the cursor, flat and in lower case; the cursor moves behind it."""
        start = self.at
        if compressed and self.data[start : start + 2] == TO_QUESTION:  # as most owners are written
            self.at = start + 2
            return self.known[HEADER_SIZE]
        name, self.at = self._name_at(start, MAX_HOPS if compressed else 0)
        if len(name) > MAX_NAME:
            raise MessageError("a name of more than 255 octets (RFC 1035 2.3.4)")
        self.known[start] = name
        return name

    def _name_at(self, start: int, hops: int) -> tuple[bytes, int]:
        data, at = self.data, start
        while at < len(data) and at - start < MAX_NAME:
            length = data[at]
            if length == 0:
                return data[start : at + 1].lower(), at + 1
            if length >= POINTER:
                return data[start:at].lower() + self._pointed(start, at, hops), at + 2
            if length > MAX_LABEL:
                raise MessageError("a label of a reserved type (RFC 6891 5)")
            at += 1 + length
        raise MessageError("a name that does not end")

    def _pointed(self, start: int, at: int, hops: int) -> bytes:
        """The rest of a name, from the pointer at `at`: "a prior occurrence of the same name" (RFC 1035 4.1.4), so
        it leads to before the name that it is in. Each hop goes back, which ends every loop."""
        if at + 2 > len(self.data):
            raise MessageError("half a pointer")
        target = int.from_bytes(self.data[at : at + 2]) & 0x3FFF
        if known := self.known.get(target):
            if hops:
                return known
        elif hops and HEADER_SIZE <= target < start:
            name, _ = self._name_at(target, hops - 1)
            self.known[target] = name
            return name
        raise MessageError("a pointer that leads nowhere behind it, or too many of them")


def encode_records(records: tuple[Record, ...], asked: bytes, at: int) -> tuple[bytes, tuple[int, ...]]:
    """Records as bytes that will stand at offset `at` of a message whose question is `asked`, and the offsets of
    their TTLs. Whole owner names are compressed (against the question, and the targets of aliases), nothing else."""
    places = {asked.lower(): HEADER_SIZE}
    out, ttls = bytearray(), []
    for record in records:
        place = places.get(record.owner)
        if place is None:
            if at + len(out) <= 0x3FFF:  # what a pointer can reach
                places[record.owner] = at + len(out)
            out += record.owner
        else:
            out += (POINTER << 8 | place).to_bytes(2)
        ttls.append(at + len(out) + TYPE_CLASS.size)
        out += RECORD.pack(record.rtype, wire.IN, record.ttl, len(record.data))
        if record.rtype == wire.CNAME and at + len(out) <= 0x3FFF:
            places.setdefault(record.data, at + len(out))
        out += record.data
    return bytes(out), tuple(ttls)
