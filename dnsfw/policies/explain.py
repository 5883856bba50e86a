"""`dnsfw explain`: what a policy says of one subject, and why.

Law: asks `decide` and shows its answer; decides nothing itself.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from dnsfw.journal.tally import BECAUSE, NO_REMEDY
from dnsfw.policies.asked import Asked, Words, asked
from dnsfw.policies.dump import RuleRecord, record
from dnsfw.policies.nearest import Near, nearest, unreadable
from dnsfw.policies.reading import Surroundings, valid_policy
from dnsfw.terminal import answer
from policy import (
    Action,
    Budgets,
    Decision,
    Flow,
    Kind,
    Policy,
    Proto,
    Query,
    Reason,
    Request,
    Rule,
    decide,
    suggest,
)


class NearRecord(msgspec.Struct, frozen=True):
    """A rule that did not decide, and why."""

    rule: RuleRecord
    why: str


class Explanation(msgspec.Struct, frozen=True):
    """The answer. `action` and `reason` are the journal's; `to_allow` is a policy line, "" where none would do."""

    subject: str
    allowed: bool
    action: str
    reason: str
    because: str
    assumed: str
    rule: RuleRecord | None
    nearest: tuple[NearRecord, ...]
    to_allow: str


def explain(path: Path, subject: str, words: Words, surroundings: Surroundings, *, as_json: bool) -> int:
    """The exit status: 0 allowed, 1 denied. Raises UsageError."""
    policy = valid_policy(path, surroundings)
    question = asked(subject, words, policy)
    decision = decided(policy, question)
    near = nearest(policy, question, decision)
    if as_json:
        made = explanation(subject, question, decision, near)
        answer(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())
    else:
        answer(_text(subject, question, decision, near))
    return int(decision.action is Action.DENY)


def decided(policy: Policy, question: Asked) -> Decision:
    """What the gate would say to a first such subject: the budgets for DNS are untouched."""
    decision = decide(policy, question.subject, question.owner, question.names)
    if isinstance(question.subject, Query):
        decision, _ = Budgets().hold(question.subject, decision, 0.0)
    return decision


def explanation(subject: str, question: Asked, decision: Decision, near: list[Near]) -> Explanation:
    """The answer as a record."""
    deciding = decision.rule if decision.reason in {Reason.ALLOW_RULE, Reason.DENY_RULE} else None
    return Explanation(
        subject=subject,
        allowed=decision.action is not Action.DENY,
        action=decision.action.value,
        reason=decision.reason.value,
        because=_because(question, decision),
        assumed=question.assumed,
        rule=None if deciding is None else record(deciding),
        nearest=tuple(NearRecord(record(one.rule), one.why) for one in near),
        to_allow=_to_allow(question, decision),
    )


def _text(subject: str, question: Asked, decision: Decision, near: list[Near]) -> str:
    verdict = "denied" if decision.action is Action.DENY else "allowed"
    method = f"{question.subject.method} " if isinstance(question.subject, Request) else ""
    lines = [f"{verdict}: {method}{subject}", f"    {_because(question, decision)}"]
    if decision.rule is not None and decision.reason in {Reason.ALLOW_RULE, Reason.DENY_RULE}:
        lines.append(f"    {_place(decision.rule)}")
    if _is_looked_into(question, decision):
        lines.append("    as long as its client says first that it wants this host, or another of this address")
    if question.assumed:
        lines.append(f"    (assumed: {question.assumed}; --address says otherwise)")
    if near:
        lines.append("rules that come near:")
        for one in near:
            lines += [f"    {_place(one.rule)}", f"        {one.why}"]
    if line := _to_allow(question, decision):
        lines.append(f"to allow it: {line}")
        if isinstance(question.subject, Request):
            host = suggest(question.subject.flow, question.owner, question.names)
            lines.append(f"    (or the whole host: {host})")
    elif decision.reason is Reason.DENY_RULE:
        lines.append("no line can allow it: a deny rule wins wherever it stands")
    return "\n".join(lines)


def _is_looked_into(question: Asked, decision: Decision) -> bool:
    """Is it a flow that a host rule opens, for whose names its client is held to?"""
    speaks = isinstance(question.subject, Flow) and question.subject.proto in (Proto.TCP, Proto.UDP)
    by_name = decision.rule is not None and decision.rule.kind is Kind.HOST
    return speaks and by_name and decision.action is Action.ALLOW


def _place(rule: Rule) -> str:
    return f"{rule.source}: {rule.source.text.strip()}"


def _because(question: Asked, decision: Decision) -> str:
    words = BECAUSE[decision.reason]
    if decision.action is Action.INSPECT:
        return "a rule looks at URLs here, so each request will be judged by itself"
    detail = unreadable(question) if decision.reason is Reason.MALFORMED else ""
    return f"{words}: {detail}" if detail else words


def _to_allow(question: Asked, decision: Decision) -> str:
    if decision.action is not Action.DENY or decision.reason in NO_REMEDY:
        return ""
    return suggest(question.subject, question.owner, question.names)
