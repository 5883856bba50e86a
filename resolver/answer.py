"""Answer rules: which records of a checked response reach the client, and which addresses are bound.

Law: pure. A record survives because the question explains it, never because it was there. Everything is walked from
the question along the chain of aliases, in whatever order the records came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from policy.value import Value
from policy.values import Address, Network, address
from resolver import svcb, wire
from resolver.message import Message, Record
from resolver.special import is_special

MAX_ALIASES: Final = 11  # CNAMEs in one chain; longer ones and loops end in SERVFAIL (RFC 1034 3.6.2)
MAX_TTL: Final = 3600  # seconds a client or the cache may keep anything
MAX_NEGATIVE_TTL: Final = 300  # seconds for "no such name" and "no such type" (RFC 2308 5 allows hours)
MAX_ADDRESSES: Final = 256  # of one name at one time: what one answer may ask the bindings to hold
FILTERED_TTL: Final = 5  # seconds for an answer whose every address was filtered
_ADDRESSES: Final = (wire.A, wire.AAAA)
_SERVICES: Final = (wire.SVCB, wire.HTTPS)
_PROOF: Final = frozenset({wire.NSEC, wire.NSEC3, wire.RRSIG})  # of a negative answer (RFC 4035 3.1.3)


class AnswerError(ValueError):
    """A well-formed response that does not make an answer: an alias loop, two aliases for one name, …"""


class Answer(Value, frozen=True):
    """What a question came to. `addresses` are those to bind to the asked name; `ttl` is how many seconds it may
    be repeated (0: not at all); `filtered` counts records taken out for the addresses in them."""

    rcode: int
    records: tuple[Record, ...]
    authority: tuple[Record, ...]
    addresses: tuple[tuple[Address, float], ...]
    ttl: float
    filtered: int = 0


class Rights(Value, frozen=True):
    """What the rule that allowed a name says of its addresses: may they be special, where must they lie (() is
    anywhere)."""

    private: bool = False
    within: tuple[Network, ...] = ()


class Wanted(Value, frozen=True):
    """What was asked, and what may be in the answer. `asked` is a flat wire name in lower case."""

    asked: bytes
    qtype: int
    dnssec_ok: bool = False
    rights: Rights = Rights()

    def fits(self, raw: bytes) -> bool:
        """Whether a name may resolve to these 4 or 16 octets. An IPv4 address in 16 of them (v4-mapped) is itself
        special (RFC 4291 2.5.5.2), whatever it maps to."""
        if is_special(raw) and not self.rights.private:
            return False
        within = self.rights.within
        return not within or any(address(raw) in network for network in within)


def interpret(message: Message, wanted: Wanted) -> Answer:
    """The answer in `message`. Raises AnswerError where there is none to be had."""
    chain, name = _walk(message.answers, wanted)
    qtype = wanted.qtype
    found = [record for record in message.answers if record.rtype == qtype and record.owner == name]
    rcode = message.rcode
    if found and rcode == wire.NXDOMAIN:
        raise AnswerError("records for a name that is said not to exist")
    records, addresses, filtered = _scrub(found, wanted)
    explained = chain + records
    if wanted.dnssec_ok:
        explained += _signatures(message.answers, {name, *(record.owner for record in chain)}, wanted)
    kept = _bounded(explained)
    authority = () if found else _negative(message.authority, name, wanted)
    ttl = _lifetime(kept, authority, positive=bool(found))
    if filtered and not records:
        ttl = min(ttl, FILTERED_TTL)
    bound = tuple([(each, min(seconds, ttl)) for each, seconds in addresses])
    return Answer(rcode, kept, authority, bound, ttl, filtered)


def _walk(records: Sequence[Record], wanted: Wanted) -> tuple[list[Record], bytes]:
    """The aliases from the asked name to the one that holds the data, and that name. An alias that the client
    asked for by type is data, not a step."""
    name, seen = wanted.asked, {wanted.asked}
    chain: list[Record] = []
    while wanted.qtype != wire.CNAME and not _holds(records, name, wanted.qtype):
        steps = [*_alias(records, name)]
        if not steps:
            break
        chain += steps
        name = steps[-1].data
        if name in seen or len(seen) > MAX_ALIASES:
            raise AnswerError("an alias loop, or a chain of too many aliases")
        seen.add(name)
    return chain, name


def _holds(records: Sequence[Record], name: bytes, rtype: int) -> bool:
    for record in records:  # noqa: SIM110 - the short form costs a microsecond, of every answer
        if record.rtype == rtype and record.owner == name:
            return True
    return False


def _alias(records: Sequence[Record], name: bytes) -> Iterator[Record]:
    """The CNAME at `name`; else the DNAME above it and the CNAME that follows from it (RFC 6672 2.2, 3.3)."""
    aliases = {record.data: record for record in records if record.owner == name and record.rtype == wire.CNAME}
    if len(aliases) > 1:
        raise AnswerError("two aliases for one name (RFC 2181 10.1)")
    if aliases:
        yield from aliases.values()
        return
    for record in records:
        if record.rtype == wire.DNAME and _below(name, record.owner):
            target = name[: -len(record.owner)] + record.data
            if len(target) > wire.MAX_NAME:
                raise AnswerError("a DNAME that makes the name too long (RFC 6672 2.2)")
            yield record
            yield Record(name, wire.CNAME, record.ttl, target)
            return


def _below(name: bytes, above: bytes) -> bool:
    """Whether flat `name` is under `above`, by whole labels: a suffix of the octets could begin inside a label."""
    at = 0
    while length := name[at]:
        at += 1 + length
        if name[at:] == above:
            return True
    return False


def _scrub(found: Sequence[Record], wanted: Wanted) -> tuple[list[Record], list[tuple[Address, float]], int]:
    """Records without the addresses they must not have, the addresses left, and how many records lost some."""
    kept: list[Record] = []
    addresses: list[tuple[Address, float]] = []
    filtered = 0
    for record in dict.fromkeys(found):  # duplicates say nothing (RFC 2181 5)
        if record.rtype in _ADDRESSES:
            if not wanted.fits(record.data):
                filtered += 1
                continue
            addresses.append((address(record.data), record.ttl))
            kept.append(record)
        elif record.rtype in _SERVICES:
            clean, hints = _scrub_service(record, wanted)
            filtered += clean is None or len(clean.data) < len(record.data)
            if clean is not None:
                kept.append(clean)
                addresses += [(each, record.ttl) for each in hints]
        else:
            kept.append(record)
    if len(addresses) > MAX_ADDRESSES:
        raise AnswerError(f"more than {MAX_ADDRESSES} addresses")
    return kept, addresses, filtered


def _scrub_service(record: Record, wanted: Wanted) -> tuple[Record | None, list[Address]]:
    try:
        service = svcb.scrub(record.data, wanted.fits)
    except svcb.ServiceError:
        return None, []  # malformed: a client would have to reject the set as well (RFC 9460 2.2)
    return record.but(data=service.data), list(service.hints)


def _signatures(records: Sequence[Record], owners: set[bytes], wanted: Wanted) -> Iterator[Record]:
    """Signatures of what survives, for a client that asked for them (RFC 4035 3.1.1)."""
    covered = {wanted.qtype, wire.CNAME, wire.DNAME}
    for record in records:
        if record.rtype == wire.RRSIG and record.owner in owners and int.from_bytes(record.data[:2]) in covered:
            yield record


def _negative(records: Sequence[Record], name: bytes, wanted: Wanted) -> tuple[Record, ...]:
    """The SOA of the zone that `name` would be in (RFC 2308 2), and the proof for a client that checks one."""
    kept = list[Record]()
    for record in records:
        if record.rtype == wire.SOA and (record.owner == name or _below(name, record.owner)):
            # its TTL is the lesser of its own and of its MINIMUM, the last field (RFC 2308 5)
            minimum = int.from_bytes(record.data[-4:])
            kept.append(record.but(ttl=min(record.ttl, minimum, MAX_NEGATIVE_TTL)))
        elif wanted.dnssec_ok and record.rtype in _PROOF:
            kept.append(record)
    return _bounded(kept)


def _bounded(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple([record if record.ttl <= MAX_TTL else record.but(ttl=MAX_TTL) for record in records])


def _lifetime(records: Sequence[Record], authority: Sequence[Record], *, positive: bool) -> int:
    """Seconds until the first of the records runs out. A negative answer without an SOA is never repeated
    (RFC 2308 5)."""
    if not positive and not any(record.rtype == wire.SOA for record in authority):
        return 0
    return min([record.ttl for record in (*records, *authority)], default=0)
