"""Which hosts a policy has looked into.

Law: pure: of a policy's rules, those that look at URLs, and the names that a flow for them may be for. What is not in
the answer is never decrypted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from policy.index import Policy
from policy.names import Pattern, suffixes
from policy.rules import Kind
from policy.values import Action

LARGEST = 24_000  # octets of names in all: they go with every handshake


def too_many(names: Iterable[str]) -> bool:
    """Are these more than one certificate should name?"""
    return sum(map(len, names)) > LARGEST


def inspected(policy: Policy) -> tuple[str, ...]:
    """Canonical names, sorted, without what others cover: each stands for itself and for every name below it.

    A URL rule that denies opens nothing: it is looked at where another rule allows.
    """
    looked = set(_bases(policy, Action.ALLOW, Kind.URL))
    denied = set(_bases(policy, Action.DENY, Kind.URL))
    allowed = looked | set(_bases(policy, Action.ALLOW, Kind.HOST))
    looked |= {name for name in denied if name in allowed or _is_below(name, allowed)}
    looked |= {name for name in allowed if _is_below(name, denied)}
    return tuple(sorted(name for name in looked if not _is_below(name, looked)))


def _bases(policy: Policy, action: Action, kind: Kind) -> Iterator[str]:
    """The names at or below which all of those rules' names are: no certificate says more of a pattern."""
    for rule in policy.rules:
        if rule.action is action and rule.kind is kind and isinstance(rule.destination, Pattern):
            yield rule.destination.base


def _is_below(name: str, others: Collection[str]) -> bool:
    return any(above in others for above in suffixes(name))
