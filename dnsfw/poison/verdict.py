"""What a scenario came to: observations against expectations.

Law: pure. A reply is read by a second DNS library, not by the resolver that made it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

import dnslib

from dnsfw.poison.client import Answer, Asked
from dnsfw.poison.messages import Arrived
from dnsfw.poison.records import RCODES, absolute, packed, rcode_number
from dnsfw.poison.scenario import Bound, Need, Reply, Scenario, Sent

_EDE = 15  # RFC 8914 2
_CLIENT_COOKIE = 8  # octets (RFC 7873 4)
_SHOWN = 3  # misses of one kind


class Outcome(StrEnum):
    HOLDS = "holds"
    FAILS = "FAILS"
    LACKS = "lacks"  # a hardening beyond what every forwarder owes
    NOT_APPLICABLE = "n/a"
    BROKEN = "broken"  # the bench or the target could not be started: nothing is proved


@dataclass(frozen=True, slots=True)
class Probe:
    """The bindings of a target that has some. `flows` are the gate's words, one for each flow of the scenario."""

    addresses: Mapping[str, frozenset[bytes]]
    bound: frozenset[bytes]
    count: int
    flows: Sequence[str]


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that was seen. `trouble` is what the target said of itself: faults, or that it ended."""

    zone: str
    asked: Sequence[Asked]
    arrived: Sequence[Arrived]
    probe: Probe | None = None
    trouble: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Result:
    scenario: str
    outcome: Outcome
    misses: tuple[str, ...] = ()  # what must hold and does not
    lacks: tuple[str, ...] = ()  # hardening that is not there
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Standard:
    """What a target can be asked for. `owes_all`: a hardening that it lacks is a failure."""

    knows: frozenset[Need] = field(default_factory=frozenset)
    owes_all: bool = False

    def exempt(self, scenario: Scenario) -> bool:
        return not self.knows.issuperset(scenario.needs)


def judge(scenario: Scenario, seen: Observed, standard: Standard, seconds: float = 0.0) -> Result:
    """FAILS for anything that must hold and does not; LACKS if it is hardening and the target never promised it."""
    misses = [*_replies(seen), *_sent(scenario.sent, seen), *_bound(scenario.bound, seen)]
    lacks = [*_hardening(seen)]
    if standard.owes_all:
        misses, lacks = [*misses, *lacks], []
    elif scenario.level == "hardening":
        misses, lacks = [], [*misses, *lacks]
    misses += seen.trouble
    outcome = Outcome.FAILS if misses else Outcome.LACKS if lacks else Outcome.HOLDS
    return Result(scenario.id, outcome, tuple(misses), tuple(lacks), seconds)


def _replies(seen: Observed) -> Iterator[str]:
    wrong = ((one, "; ".join(_reply(one))) for one in seen.asked)
    yield from islice((f"{_named(one)}: {said}" for one, said in wrong if said), _SHOWN)


def _hardening(seen: Observed) -> Iterator[str]:
    """As far as there is a reply; that there is none has been said."""
    wrong = ((one, "; ".join(_said(one.ask.harden, one))) for one in seen.asked)
    yield from islice((f"{_named(one)}: {said}" for one, said in wrong if said), _SHOWN)


def _named(one: Asked) -> str:
    return f"{one.ask.name} {one.ask.type}"


def _reply(one: Asked) -> Iterator[str]:
    """What is wrong with the replies to one message."""
    expect, answers = one.ask.expect, one.answers
    if expect.silent:
        if answers:
            yield "a reply came where none may"
        return
    if not answers:
        if not expect.optional:
            yield f"no reply within {one.ask.wait:g} s"
        return
    if len(answers) > 1:
        yield f"{len(answers)} replies to one question"
    yield from _form(one, answers[0].data)
    yield from _said(expect, one)


def _said(expect: Reply, one: Asked) -> Iterator[str]:
    """What is wrong with the first reply's content, if there is one."""
    if expect == Reply():
        return
    if not one.answers:
        if one.ask.expect.optional and not expect.optional:
            yield f"no reply within {one.ask.wait:g} s"
        return
    try:
        record = _read(one)
    except (dnslib.DNSError, UnicodeError, RecursionError) as error:
        yield f"the reply can't be read: {error}"
        return
    yield from _content(expect, one.answers[0], record)


def _read(one: Asked) -> dnslib.DNSRecord:
    """The first reply. One that refuses what could not be read may repeat it unread: then only its header counts."""
    data = one.answers[0].data
    try:
        return dnslib.DNSRecord.parse(data)
    except dnslib.DNSError:
        if one.section is not None or not data[3] & 15:
            raise
        return dnslib.DNSRecord(dnslib.DNSHeader.parse(dnslib.DNSBuffer(data)))


def _form(one: Asked, data: bytes) -> Iterator[str]:
    if len(data) < 12 or not data[2] & 0x80:
        yield "the reply is no response"
    elif data[:2] != one.id:
        yield "the reply has another id"
    elif one.section and data[4:6] == b"\0\1" and not data[12:].startswith(one.section):
        yield "the reply repeats another question, or another spelling of it"


def _content(expect: Reply, answer: Answer, record: dnslib.DNSRecord) -> Iterator[str]:
    codes = (expect.rcode,) if isinstance(expect.rcode, str) else expect.rcode or ()
    got = _rcode(record)
    if codes and got not in [rcode_number(code) for code in codes]:
        yield f"{_rcode_text(got)} instead of {' or '.join(codes)}"
    found = [bytes(rr.rdata.data) for rr in record.rr if rr.rtype in (1, 28)]
    if expect.addresses is not None and sorted(found) != sorted(map(packed, expect.addresses)):
        yield f"addresses {_texts(found)} instead of {', '.join(expect.addresses) or 'none'}"
    yield from (f"{text} is in the reply" for text in expect.absent if packed(text) in answer.data)
    yield from (f"octets {text} are in the reply" for text in expect.lacks if bytes.fromhex(text) in answer.data)
    yield from _measures(expect, answer, record)


def _measures(expect: Reply, answer: Answer, record: dnslib.DNSRecord) -> Iterator[str]:
    if expect.records is not None and len(record.rr) != expect.records:
        yield f"{len(record.rr)} records instead of {expect.records}"
    if expect.truncated is not None and bool(record.header.tc) != expect.truncated:
        yield f"TC is {bool(record.header.tc)}"
    if expect.ede is not None and expect.ede not in _extended_errors(record):
        yield f"no extended error {expect.ede}"
    if expect.size_at_most is not None and len(answer.data) > expect.size_at_most:
        yield f"{len(answer.data)} octets"
    highest = max((rr.ttl for rr in record.rr), default=0)
    if expect.ttl_at_most is not None and highest > expect.ttl_at_most:
        yield f"a TTL of {highest} s"
    if expect.within is not None and answer.seconds > expect.within:
        yield f"only after {answer.seconds:.2f} s"


def _rcode(record: dnslib.DNSRecord) -> int:
    """With its high bits from the OPT record (RFC 6891 6.1.3)."""
    high = next((rr.ttl >> 24 for rr in record.ar if rr.rtype == 41), 0)
    return int(record.header.rcode) | high << 4


def _rcode_text(number: int) -> str:
    return next((name for name, each in RCODES.items() if each == number), f"RCODE {number}")


def _extended_errors(record: dnslib.DNSRecord) -> set[int]:
    options = (option for rr in record.ar if rr.rtype == 41 for option in rr.rdata)
    return {int.from_bytes(option.data[:2]) for option in options if option.code == _EDE}


def _sent(expect: Sent, seen: Observed) -> Iterator[str]:
    count = len(seen.arrived)
    if expect.questions is not None and count != expect.questions:
        yield f"{count} questions upstream instead of {expect.questions}"
    if expect.at_most is not None and count > expect.at_most:
        yield f"{count} questions upstream, more than {expect.at_most}"
    if expect.at_least is not None and count < expect.at_least:
        yield f"{count} questions upstream, fewer than {expect.at_least}"
    asked = {each.text for each in seen.arrived}
    yield from (f"{name} went upstream" for name in expect.never if absolute(name, seen.zone).lower() in asked)
    yield from _unguessable(expect, seen)


def _unguessable(expect: Sent, seen: Observed) -> Iterator[str]:
    datagrams = [each for each in seen.arrived if each.over == "udp"]
    streams = len(seen.arrived) - len(datagrams)
    if expect.over_tcp_at_least is not None and streams < expect.over_tcp_at_least:
        yield f"{streams} questions over TCP"
    yield from _variety("ports", {each.peer[1] for each in datagrams}, expect.ports_at_least)
    yield from _variety("ids", {each.id for each in datagrams}, expect.ids_at_least)
    if expect.client_ids_at_most is not None:
        reused = {each.data[:2] for each in seen.arrived} & {one.id for one in seen.asked}
        if len(reused) > expect.client_ids_at_most:
            yield f"{len(reused)} ids of clients used upstream"
    largest = max((each.edns or 0 for each in seen.arrived), default=0)
    if expect.edns_at_most is not None and largest > expect.edns_at_most:
        yield f"an EDNS size of {largest} upstream"
    returned = sum(len(each.cookie) > _CLIENT_COOKIE for each in seen.arrived)
    if expect.cookies_at_least is not None and returned < expect.cookies_at_least:
        yield f"{returned} questions with the upstream's cookie, at least {expect.cookies_at_least} wanted"
    if expect.mixed_case and all(each.name in (each.name.lower(), each.name.upper()) for each in datagrams):
        yield "names go upstream in one case (no 0x20)"


def _variety(what: str, seen: Collection[int], at_least: int | None) -> Iterator[str]:
    """Different ones, and not one after the other."""
    if at_least is None:
        return
    if len(seen) < at_least:
        yield f"only {len(seen)} different {what}"
    elif max(seen) - min(seen) < 16 * len(seen):
        yield f"{what} from a narrow range"


def _bound(expect: Bound, seen: Observed) -> Iterator[str]:
    probe = seen.probe
    if probe is None:
        return
    for name, addresses in expect.to.items():
        full = absolute(name, seen.zone).removesuffix(".")
        have = probe.addresses.get(full, frozenset())
        if have != set(map(packed, addresses)):
            yield f"{name} is bound to {_texts(have)} instead of {', '.join(addresses) or 'nothing'}"
    yield from (f"{text} is bound" for text in expect.never if packed(text) in probe.bound)
    if expect.at_most is not None and probe.count > expect.at_most:
        yield f"{probe.count} bindings"
    for flow, said in zip(expect.flows, probe.flows, strict=True):
        if said != flow.verdict:
            yield f"a flow to {flow.to}:{flow.port} after {flow.after:g} s is {said}"


def _texts(addresses: Collection[bytes]) -> str:
    texts = sorted(f"{'.'.join(map(str, each)) if len(each) == 4 else each.hex(':', 2)}" for each in addresses)
    more = f", … ({len(texts)})" if len(texts) > 8 else ""
    return ", ".join(texts[:8]) + more or "none"
