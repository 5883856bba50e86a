"""What a guard did, as a typed value for other programs.

Law: pure: a Tally and facts in, a Report out; no clock, no file. The shape is versioned and published
(docs/report.schema.json).
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import cleandoc
from typing import Annotated

import msgspec

from dnsfw.journal.lifecycle import Gap
from dnsfw.journal.records import Entry
from dnsfw.journal.tally import Tally, because, remedy, what, who

SCHEMA = 1
_ROWS = 200  # of each table: a job's page shows no more


class Denied(msgspec.Struct, frozen=True):
    """One kind of denial. `what`, `process` and `why` are in a person's words; `remedy` is the policy line that would
    allow it, "" where none would; `step` and `action` are the workflow's, "" where unknown."""

    what: str
    why: str
    reason: str
    process: str
    step: str
    action: str
    remedy: str
    count: int


class Reached(msgspec.Struct, frozen=True):
    """Allowed flows to one host."""

    host: str
    count: int


class Report(msgspec.Struct, frozen=True):
    """`since` and `until` are RFC 3339 in UTC, `policy` is the SHA-256 (hex) of the policy in force and all that it
    includes. `trouble` are sentences about the guard itself."""

    v: int
    mode: str
    since: str
    until: str
    policy: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    allowed: int
    denied: int
    denials: tuple[Denied, ...]
    reached: tuple[Reached, ...]
    gaps: tuple[Gap, ...] = ()
    trouble: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report says besides the tally."""

    mode: str
    since: str
    until: str
    policy: str
    gaps: tuple[Gap, ...] = ()
    trouble: tuple[str, ...] = ()


def report(tally: Tally, facts: Facts) -> Report:
    """The most frequent rows first."""
    denials = sorted(tally.denials.values(), key=lambda denial: -denial.count)[:_ROWS]
    reached = sorted(tally.reached.items(), key=lambda pair: (-pair[1], pair[0]))[:_ROWS]
    return Report(
        SCHEMA,
        facts.mode,
        facts.since,
        facts.until,
        facts.policy,
        tally.allowed,
        tally.denied,
        tuple(_denied(denial.first, denial.count) for denial in denials),
        tuple(Reached(host, count) for host, count in reached),
        facts.gaps,
        facts.trouble,
    )


def schema() -> str:
    """The JSON Schema (2020-12) of a report."""
    (report,), definitions = msgspec.json.schema_components((Report,), ref_template="#/$defs/{name}")
    for definition in definitions.values():
        definition["description"] = cleandoc(definition["description"])
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **report, "$defs": definitions}
    return msgspec.json.format(msgspec.json.encode(made), indent=2).decode() + "\n"


def _denied(entry: Entry, count: int) -> Denied:
    owner = entry.owner
    return Denied(
        what(entry),
        because(entry),
        entry.decision.reason.value,
        who(owner),
        (owner and owner.step) or "",
        (owner and owner.action) or "",
        remedy(entry),
        count,
    )
