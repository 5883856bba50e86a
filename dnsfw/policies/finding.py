"""What `check` found, and its three ways of saying it.

Law: values in, text out. A finding is one record, the same for people, machines and GitHub's annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from policy import PolicySyntaxError, Source
from policy.report import show


class Severity(StrEnum):
    """An error makes a policy invalid, a warning is probably a mistake, a note is worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True):
    """Something at one place. `line` and `column` count from 1; `text` is the line; `hint` may be ""."""

    severity: Severity
    file: str
    line: int
    column: int
    reason: str
    hint: str
    text: str


class Derived(msgspec.Struct, frozen=True):
    """A rule that an `@registry` stands for. `origin` says which setting of the tool it comes from."""

    registry: str
    rule: str
    origin: str


class Report(msgspec.Struct, frozen=True):
    """All that was found in the policies that were checked. `rules` counts those of the valid ones."""

    valid: bool
    policies: int
    rules: int
    findings: tuple[Finding, ...]
    derived: tuple[Derived, ...]


def error(one: PolicySyntaxError) -> Finding:
    """The finding that a syntax error is."""
    return Finding(Severity.ERROR, one.file, one.line, one.column, one.reason, one.hint, one.text)


def at(source: Source, severity: Severity, reason: str, hint: str = "") -> Finding:
    """A finding about the rule or line at `source`."""
    return Finding(severity, source.file, source.line, source.column, reason, hint, source.text)


def as_text(report: Report) -> str:
    """For a person: every finding with its line and a caret, what was derived, and a summary."""
    shown = [_text(finding) for finding in report.findings]
    if report.derived:
        shown.append("derived from this machine's own configuration:")
        shown += [f"    {one.registry}: {one.rule}  # {one.origin}" for one in report.derived]
    return "\n".join([*shown, _summary(report)])


def _text(finding: Finding) -> str:
    head = f"{finding.file}:{finding.line}:{finding.column}: {finding.severity}: {finding.reason}"
    return show(head, finding.text, finding.column, finding.hint)


def _summary(report: Report) -> str:
    many = f"{report.policies} policies" if report.policies != 1 else "policy"
    counts = [_count(report.findings, severity) for severity in Severity]
    found = ", ".join(filter(None, counts)) or "nothing to remark"
    state = f"valid, {report.rules} rule{'s' if report.rules != 1 else ''}" if report.valid else "not valid"
    return f"{many} {state}: {found}"


def _count(findings: Sequence[Finding], severity: Severity) -> str:
    count = sum(finding.severity is severity for finding in findings)
    return f"{count} {severity}{'s' if count != 1 else ''}" if count else ""


def as_json(report: Report) -> str:
    """For machines."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def as_github(report: Report) -> str:
    """GitHub's workflow commands, which it shows as annotations beside the lines."""
    return "\n".join(map(_annotation, report.findings))


def _annotation(finding: Finding) -> str:
    message = f"{finding.reason} ({finding.hint})" if finding.hint else finding.reason
    place = f"file={_escaped(finding.file, ':,')},line={finding.line},col={finding.column}"
    return f"::{_COMMANDS[finding.severity]} {place},title=dnsfw::{_escaped(message)}"


def _escaped(text: str, separators: str = "") -> str:
    """What would end the command, or a property of it, as percent and two digits."""
    for char in f"%\r\n{separators}":
        text = text.replace(char, f"%{ord(char):02X}")
    return text
