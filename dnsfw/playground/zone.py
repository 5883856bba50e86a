"""The answers of the playground's DNS.

Law: pure: question bytes in, answer bytes out (dnslib does the wire format). It is honest and complete, not strict:
hostile answers are the poisoning bench's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from dnslib import AAAA, CLASS, CNAME, EDNS0, QTYPE, RCODE, RR, SOA, TXT, A, DNSError, DNSRecord

from dnsfw.playground import atlas

TTL = 60  # seconds
MAX_UDP = 512  # RFC 1035 section 2.3.4, where the question has no EDNS

_PLACES = {
    atlas.ALLOWED_NAME: atlas.ALLOWED,
    atlas.EVIL_SHARED_NAME: atlas.SHARED,
    atlas.EVIL_ZONE: atlas.EVIL,
    atlas.DOH_NAME: atlas.DOH,
}
_WILDCARDS = {atlas.WILDCARD_ZONE: atlas.SHARED, atlas.EVIL_ZONE: atlas.EVIL}
_BIG = [str(IPv4Address(atlas.ALLOWED.v4) + n) for n in range(1, 101)]


def answer(question: bytes, *, stream: bool) -> bytes | None:
    """The answer to `question`, truncated (TC) if it is too long for UDP; None if it can't be read at all."""
    try:
        query = DNSRecord.parse(question)
    except (DNSError, RecursionError):
        return None
    if len(query.questions) != 1 or query.header.qr:
        return None
    reply = query.reply()
    if query.ar and query.ar[0].rtype == QTYPE.OPT:
        reply.add_ar(EDNS0(udp_len=1232))
    records = list(_records(str(query.q.qname), query.q.qtype))
    if not records:
        reply.add_auth(_start_of_authority())
        if _place(str(query.q.qname)) is None:
            reply.header.rcode = RCODE.NXDOMAIN
    for record in records:
        reply.add_answer(record)
    packed = bytes(reply.pack())
    return packed if stream or len(packed) <= _room(query) else bytes(reply.truncate().pack())


def _records(asked: str, qtype: int) -> Iterator[RR]:
    """Owner names keep the case of the question (0x20)."""
    name = _canonical(asked)
    if name == atlas.ALIAS_NAME:
        yield RR(asked, QTYPE.CNAME, ttl=TTL, rdata=CNAME(atlas.ALLOWED_NAME))
        yield from _records(atlas.ALLOWED_NAME, qtype)
    elif name == atlas.BIG_NAME and qtype == QTYPE.A:
        yield from (RR(asked, QTYPE.A, ttl=TTL, rdata=A(address)) for address in _BIG)
    elif (place := _place(asked)) is not None:
        if qtype == QTYPE.A:
            yield RR(asked, QTYPE.A, ttl=TTL, rdata=A(place.v4))
        elif qtype == QTYPE.AAAA:
            yield RR(asked, QTYPE.AAAA, ttl=TTL, rdata=AAAA(place.v6))
        elif qtype == QTYPE.TXT:
            yield RR(asked, QTYPE.TXT, ttl=TTL, rdata=TXT("a word from the zone's owner"))


def _place(asked: str) -> atlas.Place | None:
    name = _canonical(asked)
    if name in {atlas.ALIAS_NAME, atlas.BIG_NAME}:
        return atlas.ALLOWED
    for zone, place in _WILDCARDS.items():
        if name.endswith(f".{zone}") and name not in _PLACES:
            return place
    return _PLACES.get(name)


def _canonical(asked: str) -> str:
    return asked.rstrip(".").lower()


def _start_of_authority() -> RR:
    soa = SOA("ns.example", "hostmaster.example", (1, 3600, 600, 86400, 30))
    return RR("example", QTYPE.SOA, CLASS.IN, TTL, soa)


def _room(query: DNSRecord) -> int:
    """How long an answer the asker takes over UDP: an OPT record's class says it (RFC 6891 section 6.1.2)."""
    sizes = [int(record.rclass) for record in query.ar if record.rtype == QTYPE.OPT]
    return max(MAX_UDP, *sizes) if sizes else MAX_UDP
