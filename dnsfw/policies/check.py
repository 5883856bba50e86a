"""`dnsfw check`: everything that can be said of policies before they are enforced.

Law: reads files, prints one report, changes nothing. What is an error here stops enforcing, and nothing else does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dnsfw.errors import UsageError
from dnsfw.policies import workflow
from dnsfw.policies.dump import as_json as dumped
from dnsfw.policies.finding import Derived, Finding, Report, Severity, as_github, as_json, as_text, at, error
from dnsfw.policies.reading import Library, Surroundings, bounded, parse_policy, unenforceable
from dnsfw.policies.surprises import headers, surprises
from dnsfw.terminal import answer
from policy import Policy, PolicyInvalid, Source
from policy.lint import lint
from policy.parse import TEXT_LIMIT

STDIN = Path("-")
_FORMATS = {"text": as_text, "json": as_json, "github": as_github}


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What the command line says of a check. `dump` prints the rules instead of a report."""

    output: str
    strict: bool
    dump: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """One policy's text, not yet known to be valid: a file's, or that of a step in a workflow."""

    text: str | bytes
    file: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a draft: its policy, None if it isn't valid."""

    policy: Policy | None
    findings: tuple[Finding, ...]
    derived: tuple[Derived, ...] = ()


def check(files: Sequence[Path], options: CheckOptions, surroundings: Surroundings) -> int:
    """The exit status: 0 or 1. Raises UsageError."""
    checked = [one for file in files for one in _checked(file, surroundings)]
    if options.dump:
        return _dump(checked)
    report = _report(checked)
    if text := _FORMATS[options.output](report):
        answer(text)
    failing = {Severity.ERROR, Severity.WARNING} if options.strict else {Severity.ERROR}
    return int(any(finding.severity in failing for finding in report.findings))


def _report(checked: Sequence[Checked]) -> Report:
    return Report(
        valid=not any(finding.severity is Severity.ERROR for one in checked for finding in one.findings),
        policies=sum(one.policy is not None or _is_policy(one) for one in checked),
        rules=sum(len(one.policy.rules) for one in checked if one.policy),
        findings=tuple(finding for one in checked for finding in one.findings),
        derived=tuple(derived for one in checked for derived in one.derived),
    )


def _is_policy(one: Checked) -> bool:
    return any(finding.severity is Severity.ERROR for finding in one.findings)


def _dump(checked: Sequence[Checked]) -> int:
    policies = [one.policy for one in checked if one.policy is not None]
    errors = [finding for one in checked for finding in one.findings if finding.severity is Severity.ERROR]
    if errors:
        answer(as_text(Report(valid=False, policies=1, rules=0, findings=tuple(errors), derived=())))
        return 1
    if len(policies) != 1:
        raise UsageError(f"--dump prints one policy; there are {len(policies)} here.", "Name one file.")
    answer(dumped(policies[0]))
    return 0


def _checked(file: Path, surroundings: Surroundings) -> Iterator[Checked]:
    content = _content(file)
    name = "<stdin>" if file == STDIN else str(file)
    if file.suffix not in workflow.SUFFIXES:
        yield _check_one(Draft(content, name, file.parent), surroundings)
        return
    try:
        texts = workflow.policies_in(content)
    except workflow.WorkflowError as wrong:
        yield Checked(None, (Finding(Severity.ERROR, name, wrong.line, wrong.column, wrong.reason, "", ""),))
        return
    if not texts:
        reason = "no step here gives dnsfw a policy: nothing was checked"
        yield Checked(None, (at(Source(name, 1, 1, ""), Severity.WARNING, reason, "`with:` `policy: |`"),))
    for text in texts:
        yield _check_one(Draft(text, name, Path()), surroundings)


def _content(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read(TEXT_LIMIT + 1) if file == STDIN else bounded(file)
    except OSError as failure:
        raise UsageError(f"{file} can't be read: {failure.strerror}.", "Name a policy or a workflow file.") from failure


def _check_one(draft: Draft, surroundings: Surroundings) -> Checked:
    library = Library(draft.folder, surroundings)
    try:
        policy = parse_policy(draft.text, draft.file, library, surroundings)
    except PolicyInvalid as invalid:
        return Checked(None, tuple(map(error, invalid.errors)), tuple(_derived(library)))
    findings = [
        *(at(remark.rule.source, Severity.WARNING, remark.reason, remark.hint) for remark in lint(policy)),
        *surprises(policy),
        *([error(wrong)] if (wrong := unenforceable(policy)) is not None else []),
        *_headers(draft, library, surroundings),
    ]
    findings.sort(key=lambda finding: (finding.file != draft.file, finding.file, finding.line, finding.column))
    return Checked(policy, tuple(findings), tuple(_derived(library)))


def _headers(draft: Draft, library: Library, surroundings: Surroundings) -> Iterator[Finding]:
    """About the policy's own text, and about the files that it includes."""
    texts = [(draft.file, draft.text), *((taken.file, taken.text) for taken in library.taken.values())]
    for file, text in texts:
        decoded = text if isinstance(text, str) else text.decode()
        yield from headers(decoded, file, lambda lines: parse_policy(lines, "", library, surroundings))


def _derived(library: Library) -> Iterator[Derived]:
    for taken in library.taken.values():
        if taken.verb == "registry":
            for line in taken.text.decode().splitlines():
                rule, _, origin = line.partition("#")
                yield Derived(taken.name, rule.strip(), origin.strip())
