"""Answers kept for a while: by what was asked, and by the very bytes that asked.

Law: pure; time is an argument; both tables are bounded in octets and forget the least recently used. Nothing here
decides: whoever takes an answer out has asked the judge first, and binds its addresses again.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import InitVar, dataclass, field
from typing import Final, Protocol

from policy.rules import Rule
from policy.value import Value
from policy.values import Address, Query
from resolver.answer import Answer, Rights
from resolver.exchange import Asked, Failed
from resolver.message import Record
from resolver.reply import Reply
from resolver.wire import HEADER_SIZE

_TTL: Final = struct.Struct("!I")
_RECORD_OVERHEAD: Final = 400  # octets of Python objects around one record, rounded up
_ENTRY_OVERHEAD: Final = 1200  # octets around one entry, keys and table slots among them
MAX_KEY: Final = 512  # octets of a query worth remembering as it is: no name and OPT record need more

type Bound = tuple[tuple[Address, float], ...]
type AnswerKey = tuple[Asked, Rights]  # what was asked, and what its rule says of the addresses


class _Weighed(Protocol):
    @property
    def weight(self) -> int: ...


class _Shelf[K, V: _Weighed]:
    """A table bounded in octets, which is what its entries weigh. The least recently used go first."""

    def __init__(self, octets: int) -> None:
        self._octets, self._weight = octets, 0
        self._kept: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: K, value: V) -> None:
        """Unless it is too much for an empty one."""
        weight = value.weight
        if weight > self._octets:
            return
        if key in self._kept:
            self.drop(key)
        self._kept[key] = value
        self._weight += weight
        while self._weight > self._octets:
            _, oldest = self._kept.popitem(last=False)
            self._weight -= oldest.weight

    def get(self, key: K) -> V | None:
        value = self._kept.get(key)
        if value is not None:
            self._kept.move_to_end(key)
        return value

    def drop(self, key: K) -> None:
        value = self._kept.pop(key, None)
        if value is not None:
            self._weight -= value.weight


class _Kept(Value, frozen=True):
    """An answer, or that there was none to be had, from `at` until `until`."""

    answer: Answer | Failed
    at: float
    until: float
    weight: int


class AnswerCache:
    """Answers by what was asked. `octets` bounds the memory, roughly."""

    def __init__(self, octets: int) -> None:
        self._kept = _Shelf[AnswerKey, _Kept](octets)

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: AnswerKey, answer: Answer | Failed, lifetime: float, now: float) -> None:
        """Keep `answer` for `lifetime` seconds, a failure too (RFC 2308 7, RFC 9520 3.2)."""
        if lifetime > 0:
            self._kept.put(key, _Kept(answer, now, now + lifetime, _weight(answer)))

    def get(self, key: AnswerKey, now: float) -> tuple[Answer | Failed, float] | None:
        """What is kept, TTLs counted down in whole seconds, and as of when it is that; None where nothing is."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if now >= kept.until:
            self._kept.drop(key)
            return None
        if isinstance(kept.answer, Failed):
            return kept.answer, now
        age = int(now - kept.at)
        return aged(kept.answer, age), kept.at + age


def _weight(answer: Answer | Failed) -> int:
    if isinstance(answer, Failed):
        return _ENTRY_OVERHEAD
    weight = _ENTRY_OVERHEAD
    for records in (answer.records, answer.authority):
        for each in records:
            weight += len(each.owner) + len(each.data) + _RECORD_OVERHEAD
    return weight


def aged(answer: Answer, seconds: int) -> Answer:
    """The same answer `seconds` later."""
    if seconds <= 0:
        return answer

    def older(record: Record) -> Record:
        return record.but(ttl=max(0, record.ttl - seconds))

    return answer.but(
        records=tuple(older(record) for record in answer.records),
        authority=tuple(older(record) for record in answer.authority),
        addresses=tuple((each, max(0.0, ttl - seconds)) for each, ttl in answer.addresses),
        ttl=max(0, answer.ttl - seconds),
    )


@dataclass(slots=True)
class Template:
    """A reply to be sent again. `query` is the first that it answered, `rule` the one that allowed that, `bound` what
    to bind each time, `until` when it ends. TTLs are counted down once a second, not once a reply."""

    query: Query
    rule: Rule | None
    answer: Answer
    at: float
    reply: InitVar[Reply]
    until: float = field(init=False)
    counted_at: float = field(init=False)  # when the TTLs were last counted down: `bound` lives from then on
    bound: Bound = field(init=False)
    _head: bytes = field(init=False)  # between the id and the name
    _tail: bytes = field(init=False)  # from the type on
    _name_end: int = field(init=False)
    _ttls: tuple[int, ...] = field(init=False)  # where they are in the tail

    def __post_init__(self, reply: Reply) -> None:
        self.until, self.counted_at, self.bound = self.at + self.answer.ttl, self.at, self.answer.addresses
        self._name_end = end = reply.data.index(0, HEADER_SIZE) + 1
        self._head, self._tail = reply.data[2:HEADER_SIZE], reply.data[end:]
        self._ttls = tuple(at - end for at in reply.ttls)

    def made_for(self, rule: Rule | None) -> bool:
        """Whether the answer inside was filtered by what `rule` says. A reload makes new rules, and new replies."""
        return rule is self.rule

    def reply_to(self, query: bytes) -> bytes:
        """The reply with the query's own id and spelling."""
        return query[:2] + self._head + query[HEADER_SIZE : self._name_end] + self._tail

    def count_down(self, now: float) -> None:
        age = int(now - self.at)
        self.bound = tuple((each, max(0.0, ttl - age)) for each, ttl in self.answer.addresses)
        records = (*self.answer.records, *self.answer.authority)
        tail = bytearray(self._tail)
        for at, record in zip(self._ttls, records, strict=True):
            _TTL.pack_into(tail, at, max(0, record.ttl - age))
        self._tail = bytes(tail)
        self.counted_at = self.at + age

    @property
    def weight(self) -> int:
        return _ENTRY_OVERHEAD + len(self._tail) + len(self._ttls) * _RECORD_OVERHEAD


class WireCache:
    """Ready replies by the bytes of the query. A hit costs no parsing.

    The key is the query without its id, the name in lower case. Only queries that passed the wire gate get in; of
    two queries with one key, if one passed then both are the same question: a name that passed has no zero octet
    but its last, so the first zero octet ends the name in both, and only the case of letters before it differs.
    """

    def __init__(self, octets: int) -> None:
        self._templates = _Shelf[tuple[bytes, bytes, bytes], Template](octets)

    def __len__(self) -> int:
        return len(self._templates)

    def put(self, query: bytes, template: Template) -> None:
        if len(query) <= MAX_KEY:
            self._templates.put(_key(query), template)

    def get(self, query: bytes, now: float) -> Template | None:
        template = self._templates.get(key := _key(query))
        if template is None:
            return None
        if now >= template.until:
            self._templates.drop(key)
            return None
        if now >= template.counted_at + 1:
            template.count_down(now)
        return template

    def discard(self, query: bytes) -> None:
        self._templates.drop(_key(query))


def _key(query: bytes) -> tuple[bytes, bytes, bytes]:
    end = query.find(0, HEADER_SIZE)
    return query[2:HEADER_SIZE], query[HEADER_SIZE:end].lower(), query[end:]
