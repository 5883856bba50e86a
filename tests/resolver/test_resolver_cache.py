"""Ready replies by the bytes of a query: equal keys only for equal questions."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.values import Flow, Proto, Query
from resolver import wire
from resolver.answer import Answer
from resolver.cache import MAX_KEY, Template, WireCache, _key
from resolver.message import Record
from resolver.reply import answered
from resolver.wire import Question, read_query, wire_name

CLIENT = Flow(Proto.UDP, ip_address("127.0.0.1"), 4, ip_address("127.0.0.1"), 53)


def query(name: bytes, qtype: int = 1, ident: int = 1, flags: int = 0x0100) -> bytes:
    return struct.pack("!6H", ident, flags, 1, 0, 0, 0) + name + struct.pack("!HH", qtype, 1)


def template(data: bytes, ttl: int = 60, now: float = 0.0) -> Template:
    question = read_query(data)
    assert isinstance(question, Question)
    answer = Answer(0, (Record(question.asked.lower(), wire.A, ttl, b"\xc0\0\2\1"),), (), (), ttl)
    return Template(Query(question.name, question.qtype, CLIENT), None, answer, now, answered(question, answer, 512))


def test_a_hit_in_any_spelling_and_with_any_id() -> None:
    cache = WireCache(10_000)
    first = query(b"\3www\7example\3com\0")
    cache.put(first, template(first))
    again = query(b"\3WWW\7eXample\3com\0", ident=0xABCD)
    found = cache.get(again, 1.0)
    assert found is not None
    assert found.reply_to(again)[:2] == b"\xab\xcd"
    assert b"\3WWW\7eXample\3com\0" in found.reply_to(again)


def test_no_hit_for_another_type_flag_or_name() -> None:
    cache = WireCache(10_000)
    first = query(b"\3www\0", qtype=wire.HTTPS)
    cache.put(first, template(first))
    others = [
        query(b"\3www\0", qtype=wire.HTTPS | 0x20),  # 'A' and 'a' as octets of a type
        query(b"\3www\0", qtype=wire.HTTPS, flags=0x0110),
        query(b"\3wwv\0", qtype=wire.HTTPS),
        query(b"\3www\0", qtype=wire.HTTPS) + b"\0",
    ]
    assert [cache.get(other, 1.0) for other in others] == [None] * 4


def test_replies_end_with_their_ttl() -> None:
    cache = WireCache(10_000)
    first = query(b"\3www\0")
    cache.put(first, template(first, ttl=10, now=100.0))
    assert cache.get(first, 109.9) is not None
    assert cache.get(first, 110.0) is None
    assert len(cache) == 0


def test_long_queries_are_not_remembered() -> None:
    cache = WireCache(100_000)
    first = query(b"\3www\0")
    cache.put(first + bytes(MAX_KEY), template(first))
    assert len(cache) == 0


labels = st.lists(st.text("aAbB-_1", min_size=1, max_size=3), max_size=3)


@settings(deadline=None)  # how long it takes on a busy machine proves nothing
@given(labels, labels, st.sampled_from([1, 28, 65, 97]), st.sampled_from([1, 28, 65, 97]))
def test_equal_keys_mean_equal_questions(one: list[str], other: list[str], first: int, second: int) -> None:
    a, b = (query(wire_name(".".join(each)), qtype) for each, qtype in ((one, first), (other, second)))
    same = (".".join(one).lower(), first) == (".".join(other).lower(), second)
    assert (_key(a) == _key(b)) is same


@settings(deadline=None)
@given(st.binary(max_size=30), st.integers(0, 30))
def test_garbage_that_shares_a_key_with_a_question_is_that_question(noise: bytes, at: int) -> None:
    good = query(b"\3www\7example\3com\0")
    changed = good[: 12 + at] + noise + good[12 + at + len(noise) :]
    if _key(changed) == _key(good):
        question = read_query(changed)
        assert isinstance(question, Question)
        assert question.name == "www.example.com"
