"""How much a program may say through names that policy leaves open: DNS as a way out, measured and bounded.

Law: pure; time is an argument; bounded by its own limits, for what is refused is not remembered. Only ever turns an
ALLOW into a DENY. Entropy is told, for people to read; numbers that anyone can check decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log2
from typing import Final

from policy.decide import Decision
from policy.names import NAME_OCTETS, Pattern
from policy.value import Value
from policy.values import Action, Query, Reason

MINUTE: Final = 60.0
_TXT: Final = 16
_WEIGHTS: Final = (0.0, *(count * log2(count) for count in range(1, NAME_OCTETS + 1)))  # of one octet's count in a name

# What programs look up (IANA dns-parameters): A NS CNAME SOA PTR MX TXT AAAA SRV DNAME, what validators need (DS SSHFP
# RRSIG NSEC DNSKEY NSEC3 NSEC3PARAM TLSA), SVCB HTTPS CAA; and ANY, which the resolver answers itself (RFC 8482).
# NULL and what is obsolete, experimental or private carries data for tunnels alone.
SENSIBLE_TYPES: Final = frozenset(
    {1, 2, 5, 6, 12, 15, _TXT, 28, 33, 39, 43, 44, 46, 47, 48, 50, 51, 52, 64, 65, 255, 257}
)


@dataclass(frozen=True, slots=True)
class Limits:
    """For each wildcard: new names, and octets in them that the wildcard left to the asker. A job is the life of the
    guard. A build meets a few dozen names under one wildcard; a kilobyte of secrets in base32 is some forty."""

    names_a_minute: int = 100
    octets_a_minute: int = 2_048
    names_a_job: int = 1_000
    octets_a_job: int = 16_384


class Spent(Value, frozen=True):
    """What one wildcard has cost so far, this question with it. `chosen` is what the asker chose in its name."""

    names_minute: int
    octets_minute: int
    names_job: int
    octets_job: int
    chosen: str

    @property
    def entropy(self) -> float:
        """Of what was chosen, in bits an octet."""
        return entropy(self.chosen)

    def within(self, limits: Limits) -> bool:
        return (
            self.names_minute <= limits.names_a_minute
            and self.octets_minute <= limits.octets_a_minute
            and self.names_job <= limits.names_a_job
            and self.octets_job <= limits.octets_a_job
        )


_NOTHING: Final = Spent(0, 0, 0, 0, "")


@dataclass(slots=True)
class _Account:
    """One wildcard's. `known` holds hashes of the names that were paid for: never more than the job's limit."""

    known: set[int] = field(default_factory=set)
    since: float = 0.0
    spent: Spent = _NOTHING

    def price(self, chosen: str, now: float) -> Spent:
        """What there would be on the account with one more name."""
        before = self.spent
        if now - self.since >= MINUTE:
            before = before.but(names_minute=0, octets_minute=0)
        size = len(chosen)
        return Spent(
            before.names_minute + 1,
            before.octets_minute + size,
            before.names_job + 1,
            before.octets_job + size,
            chosen,
        )

    def pay(self, name: str, price: Spent, now: float) -> None:
        self.known.add(hash(name))
        if now - self.since >= MINUTE:
            self.since = now
        self.spent = price


class Budgets:
    """Accounts of the wildcards in use: rules of one wildcard share one, so that more rules are not more budget."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._accounts: dict[Pattern, _Account] = {}

    def spent(self) -> dict[Pattern, Spent]:
        """What is on each account."""
        return {host: account.spent for host, account in self._accounts.items()}

    def restore(self, host: Pattern, spent: Spent, now: float) -> None:
        """What was on an account in an earlier life, of which the names are not known any more: each costs again."""
        self._accounts[host] = _Account(since=now, spent=spent)

    def hold(self, query: Query, decision: Decision, now: float) -> tuple[Decision, Spent | None]:
        """The decision on a query, or DENY for its type or for its wildcard's budget; and what was spent, where this
        question was one to pay for.

        A name is paid for once. TXT is paid for each time: its answers carry most.
        """
        rule = decision.rule
        if decision.action is not Action.ALLOW or rule is None:
            return decision, None
        if query.qtype not in SENSIBLE_TYPES:
            return decision.but(action=Action.DENY, reason=Reason.TYPE), None
        host = rule.destination
        if not isinstance(host, Pattern) or not (host.deep or host.label):
            return decision, None  # a name that policy spells out says nothing
        account = self._accounts.get(host)
        if account is None:
            account = self._accounts[host] = _Account(since=now)
        if hash(query.name) in account.known and query.qtype != _TXT:
            return decision, None
        price = account.price(query.name.removesuffix(host.base), now)
        if not price.within(self._limits):
            return decision.but(action=Action.DENY, reason=Reason.BUDGET), price
        account.pay(query.name, price, now)
        return decision, price


def entropy(text: str) -> float:
    """Shannon's, of no more than a name, in bits an octet: about 2 to 3.5 for words, over 4 for long encoded data."""
    size = len(text)
    return log2(size) - sum([_WEIGHTS[text.count(each)] for each in set(text)]) / size if size else 0.0
