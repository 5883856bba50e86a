"""Rules: what the parser makes and `decide` reads.

Law: frozen values. A rule is flat and self-sufficient: headers, includes and placeholders are already worked in, so
no rule needs another or its place in the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from policy.names import Pattern, glob
from policy.paths import PathPattern
from policy.values import Action, Network, Owner, Proto

TCP = frozenset({int(Proto.TCP)})
UDP = frozenset({int(Proto.UDP)})
ICMP = frozenset({int(Proto.ICMP), int(Proto.ICMPV6)})

METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
)  # RFC 9110 section 9.3, RFC 5789

SCHEME_PORTS = {"https": 443, "http": 80}
CGROUP_KINDS = ("@host", "@container", "@docker")


class Kind(StrEnum):
    """What a rule's destination is."""

    HOST = "host"
    ADDRESS = "address"
    URL = "url"
    DNS = "dns"  # may be resolved; gives no right to connect


class Flag(StrEnum):
    """A rule's flags that are words; `within=` is a field of its own."""

    PASSTHROUGH = "passthrough"
    INSECURE = "insecure"
    PRIVATE = "private"
    NO_SNI = "no-sni"


class Key(StrEnum):
    """What an attribute looks at."""

    EXE = "exe"
    ARG = "arg"
    USER = "user"
    CGROUP = "cgroup"
    IMAGE = "image"
    STEP = "step"
    ACTION = "action"


_SURROUNDINGS = (Key.IMAGE, Key.STEP, Key.ACTION)  # known or not by themselves, whatever is known of the process


@dataclass(frozen=True, slots=True)
class Source:
    """Where a rule was written. `line` and `column` count from 1; `text` is the line as it stands in the file."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One condition on the owner. `value` is a glob unless `literal`; `position` is the N of `arg[N]`, 0 the program's
    own name. A `user` value is the uid in decimal."""

    key: Key
    value: str
    literal: bool = True
    position: int | None = None
    _regex: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        regex = None if self.literal else glob(self.value)
        object.__setattr__(self, "_regex", regex)

    def holds(self, owner: Owner) -> bool | None:
        """Does the owner meet this condition? None where the owner's facts don't tell."""
        if self.key is Key.CGROUP and self.value.startswith("@"):
            return self._kind(owner)
        facts = self._facts(owner)
        if facts is None:
            return None
        if any(self._fits(fact) for fact in facts):
            return True
        return False if owner.complete or self.key in _SURROUNDINGS else None

    def _kind(self, owner: Owner) -> bool | None:
        """`@host`, `@container` and `@docker`: told by what attribution found, never by the cgroup's spelling."""
        if owner.container is None:
            return None
        return (owner.container == "") == (self.value == "@host")

    def _facts(self, owner: Owner) -> tuple[str, ...] | None:
        """What the owner has that could fit; None if that isn't known at all."""
        match self.key:
            case Key.ARG:
                here = self.position
                return owner.argv[1:] if here is None else owner.argv[here : here + 1]
            case Key.USER:
                return (str(owner.uid),)
        fact = getattr(owner, self.key)
        return None if fact is None else (fact,)

    def _fits(self, fact: str) -> bool:
        if not fact:
            return False  # what is unknown satisfies nothing, not even `*`
        return fact == self.value if self._regex is None else self._regex.fullmatch(fact) is not None


@dataclass(frozen=True, slots=True)
class Url:
    """The part of a rule that only a request can be held against. `methods` None is every method."""

    scheme: str
    path: PathPattern
    methods: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of policy. `action` is ALLOW or DENY; `destination` is a Network for ADDRESS rules, else a Pattern.

    `protos` (IP protocol numbers) and `ports` None stand for all of them. `within` are the networks that answers must
    lie in, () for anywhere. `source` plays no part in comparison: two rules that say the same are equal.
    """

    action: Action
    kind: Kind
    destination: Pattern | Network
    protos: frozenset[int] | None = TCP
    ports: frozenset[int] | None = frozenset({443})
    url: Url | None = None
    who: tuple[Attribute, ...] = ()
    flags: frozenset[Flag] = frozenset()
    within: tuple[Network, ...] = ()
    source: Source = field(default=Source("", 0, 0, ""), compare=False)

    def covers(self, proto: int, port: int) -> bool:
        """Does the rule speak of this protocol and destination port?"""
        return (self.protos is None or proto in self.protos) and (self.ports is None or port in self.ports)

    def applies(self, owner: Owner | None) -> bool:
        """Is the owner one that the rule speaks of?

        What isn't known of an owner is held against it: it satisfies no allow rule and escapes no deny rule.
        """
        if not self.who:
            return True
        if owner is None:
            return self.action is Action.DENY
        doubt = self.action is Action.DENY
        return all(doubt if (held := attribute.holds(owner)) is None else held for attribute in self.who)
