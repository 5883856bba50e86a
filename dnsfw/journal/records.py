"""The journal's records: their published schema, and how they are made.

Law: pure. `v` changes when a field's meaning does; docs/journal.schema.json is made from these types (`make schema`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from inspect import cleandoc

import msgspec

from dnsfw.journal.lifecycle import Life
from policy import Decision, Flow, Owner, Query, Request, Seen, Spent, Subject
from policy.value import Value

SCHEMA = 1


class Entry(Value, frozen=True):
    """What the gate hands over: a subject, what was decided, and what was known. `fault` is an error's text, or what
    somebody else complained of; `spent` what a wildcard's budget comes to where this query was paid for or could not
    be; `seen` what a flow's client said first, once it was judged by that. `times` is how often it came, for a question
    that was repeated within a second, or how many flows alike a change of policy has ended."""

    subject: Subject | None
    decision: Decision
    owner: Owner | None
    names: tuple[str, ...]
    fault: str | None = None
    spent: Spent | None = None
    times: int = 1
    seen: Seen | None = None


class SubjectRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A query (`name`, `qtype`), a flow (`proto` to `dport`) or an HTTP request on one (the rest), addresses as text.
    `path` is without its query, which may hold secrets."""

    kind: str
    name: str | None = None
    qtype: int | None = None
    proto: int | None = None
    src: str | None = None
    sport: int | None = None
    dst: str | None = None
    dport: int | None = None
    scheme: str | None = None
    host: str | None = None
    method: str | None = None
    path: str | None = None


class RuleRecord(msgspec.Struct, frozen=True):
    """Where the deciding rule stands."""

    file: str
    line: int
    text: str


class OwnerRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The process behind the socket. Of the last five, what is unknown is left out, as is what there isn't."""

    pid: int
    start_time: int
    uid: int
    exe: str
    argv: tuple[str, ...]
    cgroup: str
    complete: bool = True
    container: str = ""
    container_name: str = ""
    image: str = ""
    step: str = ""
    action: str = ""


class SpentRecord(msgspec.Struct, frozen=True):
    """What one wildcard has cost: new names and the octets chosen in them, of this minute and in all. `entropy` is this
    name's, in bits an octet: told, never judged by."""

    names_minute: int
    octets_minute: int
    names_job: int
    octets_job: int
    entropy: float


class SeenRecord(msgspec.Struct, frozen=True):
    """What a client's first words said: `protocol` is tls, http, quic or other, `name` the host that it asked for."""

    protocol: str
    name: str | None


class Record(msgspec.Struct, frozen=True, omit_defaults=False):
    """One decision, or so many `times` the same but for the source port: those after the first of some seconds, which
    has a record of its own, written at once. `v` is the schema's number, `time` and, of the last of many, `until`
    are RFC 3339 in UTC, `mode` is enforce or audit."""

    v: int
    time: str
    mode: str
    subject: SubjectRecord
    decision: str
    reason: str
    rule: RuleRecord | None
    owner: OwnerRecord | None
    names: tuple[str, ...]
    fault: str | None = None
    spent: SpentRecord | None = None
    times: int = 1
    until: str | None = None
    seen: SeenRecord | None = None


class LifeRecord(msgspec.Struct, frozen=True):
    """A turn in the guard's own `life`: of what (engine, policy, proxy), why, and what belongs to it, a line each:
    the rules that another policy has more (+) and less (-). `time` is when it happened; it may be written later."""

    v: int
    time: str
    mode: str
    life: str
    what: str
    reason: str
    lines: tuple[str, ...]


class Taken(Value, frozen=True):
    """An entry and when it came, in seconds since the epoch; or so many alike, from then on until `until`; or a turn in
    the guard's life."""

    entry: Entry | Life
    when: float
    times: int = 1
    until: float | None = None


def to_record(entry: Entry, when: float, mode: str) -> Record:
    """One decision, `when` it was in seconds since the epoch."""
    return _decision_record(entry, Taken(entry, when, entry.times), mode)


def as_record(taken: Taken, mode: str) -> Record | LifeRecord:
    """As it is written."""
    entry = taken.entry
    if isinstance(entry, Life):
        return LifeRecord(SCHEMA, rfc3339(entry.when), mode, entry.turn.value, entry.what, entry.reason, entry.lines)
    return _decision_record(entry, taken, mode)


def _decision_record(entry: Entry, taken: Taken, mode: str) -> Record:
    decision = entry.decision
    rule = decision.rule
    return Record(
        v=SCHEMA,
        time=rfc3339(taken.when),
        mode=mode,
        subject=_subject(entry.subject),
        decision=decision.action,
        reason=decision.reason,
        rule=None if rule is None else RuleRecord(rule.source.file, rule.source.line, rule.source.text),
        owner=None if entry.owner is None else _owner(entry.owner),
        names=entry.names,
        fault=entry.fault,
        spent=None if entry.spent is None else _spent(entry.spent),
        times=taken.times,
        until=None if taken.until is None else rfc3339(taken.until),
        seen=None if entry.seen is None else SeenRecord(entry.seen.protocol.value, entry.seen.name),
    )


def rfc3339(when: float) -> str:
    """Seconds since the epoch as UTC text."""
    seconds, micros = divmod(round(when * 1e6), 1_000_000)
    return f"{_second(seconds)}.{micros:06}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    """Most entries of a batch are of one second, and its text is what costs most in a record."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


_text = lru_cache(maxsize=1024)(str)  # of addresses, of which few speak and many are spoken to


def _subject(subject: Subject | None) -> SubjectRecord:
    if subject is None:
        return SubjectRecord("unreadable")
    if isinstance(subject, Query):
        client = subject.client
        return SubjectRecord("query", subject.name, subject.qtype, client.proto, _text(client.src), client.sport)
    if isinstance(subject, Request):
        url = (subject.scheme, subject.host, subject.method, subject.path)
        return SubjectRecord("request", None, None, *_ends(subject.flow), *url)
    return SubjectRecord("flow", None, None, *_ends(subject))


def _ends(flow: Flow) -> tuple[int, str, int, str, int]:
    return flow.proto, _text(flow.src), flow.sport, _text(flow.dst), flow.dport


def _owner(owner: Owner) -> OwnerRecord:
    known = (owner.pid, owner.start_time, owner.uid, owner.exe, owner.argv, owner.cgroup, owner.complete)
    where = (owner.container, owner.container_name, owner.image, owner.step, owner.action)
    return OwnerRecord(*known, *(each or "" for each in where))


def _spent(spent: Spent) -> SpentRecord:
    counts = (spent.names_minute, spent.octets_minute, spent.names_job, spent.octets_job)
    return SpentRecord(*counts, round(spent.entropy, 2))


def schema() -> str:
    """The JSON Schema (2020-12) of a line of the journal: a decision, or a turn in the guard's life."""
    kinds, definitions = msgspec.json.schema_components((Record, LifeRecord), ref_template="#/$defs/{name}")
    for definition in definitions.values():
        definition["description"] = cleandoc(definition["description"])
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": kinds, "$defs": definitions}
    return msgspec.json.format(msgspec.json.encode(made), indent=2).decode() + "\n"
