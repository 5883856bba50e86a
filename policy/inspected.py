"""Which hosts a policy has looked into.

Law: pure: of a policy's rules, those that look at URLs, and the names that a flow for them may be for. What is not in
the answer is never decrypted.
"""

from __future__ import annotations

from collections.abc import Iterator

from policy.index import Policy
from policy.names import Pattern
from policy.rules import Kind, Rule
from policy.values import Action


def inspected(policy: Policy) -> tuple[str, ...]:
    """Canonical names, sorted, without what others cover: each stands for itself and for every name below it.

    A URL rule that denies opens nothing: it is looked at where another rule allows.
    """
    names = {name for rule in policy.rules if rule.kind is Kind.URL for name in _names(rule, policy)}
    return tuple(sorted(name for name in names if not any(_below(name, other) for other in names)))


def _names(rule: Rule, policy: Policy) -> Iterator[str]:
    base = _base(rule)
    if rule.action is Action.ALLOW:
        yield base
        return
    for other in policy.rules:
        if other.action is Action.ALLOW and other.kind in (Kind.HOST, Kind.URL):
            allowed = _base(other)
            if base == allowed or _below(base, allowed):
                yield base
            elif _below(allowed, base):
                yield allowed


def _base(rule: Rule) -> str:
    """The name at or below which all the rule's names are: neither a certificate nor this function says more of a
    pattern. Host and URL rules have one."""
    assert isinstance(rule.destination, Pattern)  # noqa: S101 - for the type: the parser sees to it
    return rule.destination.base


def _below(name: str, other: str) -> bool:
    return name.endswith(f".{other}")
