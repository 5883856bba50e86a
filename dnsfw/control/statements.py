"""A guard's statement as text, and whether it can be believed.

Law: what commands show; the statement itself is `dnsfw.journal.signing`'s.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from typing import Final

import click
import msgspec

from dnsfw.errors import UsageError
from dnsfw.journal.report import Report
from dnsfw.journal.signing import Statement, StatementError, verify
from dnsfw.journal.tally import printable, several

LARGEST: Final = 8 << 20  # octets; a report has some hundred rows


def shown(statement: str, form: str) -> Iterator[str]:
    """`form` is text, json (the report) or statement (all of it)."""
    said = msgspec.json.decode(statement, type=Statement)
    if form == "statement":
        yield statement
    elif form == "json":
        yield said.report
    else:
        yield from _text(msgspec.json.decode(said.report, type=Report))


def verified(statement: bytes, key: str) -> int:
    """Say whether `key` (base64) signed it, and what it says; the exit status. Raises UsageError."""
    try:
        octets = b64decode(key, validate=True)
    except ValueError as error:
        remedy = "It is 44 characters of base64, from a statement at the start."
        raise UsageError(f"{key!r} is no key.", remedy) from error
    try:
        report = verify(statement, octets)
    except StatementError as error:
        click.echo(f"not believed: {error.problem}")
        return 1
    click.echo("signed by that key:")
    for line in _text(report):
        click.echo(line)
    return 0


def _text(report: Report) -> Iterator[str]:
    verb = "would have been denied" if report.mode == "audit" else "denied"
    yield f"{report.denied or 'nothing'} {verb}, {report.allowed} allowed, from {report.since} to {report.until}"
    yield f"  policy sha256 {report.policy}"
    for gap in report.gaps:
        state = "closed" if gap.closed else "open"
        yield f"  ! down for {gap.seconds:.1f} s ({printable(gap.reason)}), {state} meanwhile"
    for row in report.denials:
        yield f"  ✗ {row.what}{f' ×{row.count}' if row.count > 1 else ''}  by {row.process}"
        yield f"      {row.why}"
        if row.remedy:
            yield f"      to allow it: {row.remedy}"
    for reached in report.reached:
        yield f"  ✓ {printable(reached.host)}: {several(reached.count, 'connection')}"
    yield from (f"  ! {printable(sentence)}" for sentence in report.trouble)
