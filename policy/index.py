"""A policy, and the way from a destination to the rules that name it without asking each.

Law: an index only narrows. What it hands out names the destination, and it hands out all that do; ports, owners and
paths are the decision's business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from policy.names import Pattern, suffixes
from policy.rules import Rule
from policy.values import Action, Address, Network


class Index:
    """Rules by the name or the network they speak of."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._exact: dict[str, list[Rule]] = defaultdict(list)
        self._below: dict[str, list[Rule]] = defaultdict(list)  # by base: `*.base`
        self._globs: dict[str, list[Rule]] = defaultdict(list)  # by base: `derp*.base`
        self._networks: dict[tuple[int, int], dict[int, list[Rule]]] = {}  # by version and host bits, then prefix
        for rule in rules:
            self._add(rule, rule.destination)

    def _add(self, rule: Rule, destination: Pattern | Network) -> None:
        if not isinstance(destination, Pattern):
            bits = destination.max_prefixlen - destination.prefixlen
            table = self._networks.setdefault((destination.version, bits), {})
            table.setdefault(int(destination.network_address) >> bits, []).append(rule)
        elif destination.label:
            self._globs[destination.base].append(rule)
        else:
            (self._below if destination.deep else self._exact)[destination.base].append(rule)

    def by_name(self, name: str) -> Iterator[Rule]:
        """Every rule whose host matches this canonical name: one look-up a label, however many rules there are."""
        yield from self._exact.get(name, ())
        for above in suffixes(name):
            yield from self._below.get(above, ())
            for rule in self._globs.get(above, ()):
                if isinstance(rule.destination, Pattern) and rule.destination.matches(name):
                    yield rule

    def by_address(self, address: Address) -> Iterator[Rule]:
        """Every rule whose network holds the address: one look-up a prefix length in use."""
        number, version = int(address), address.version
        for (family, bits), table in self._networks.items():
            if family == version:
                yield from table.get(number >> bits, ())


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules, in the order written, with an index each for those that deny and those that allow."""

    rules: tuple[Rule, ...]
    denies: Index = field(init=False, repr=False, compare=False)
    allows: Index = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, action in (("denies", Action.DENY), ("allows", Action.ALLOW)):
            object.__setattr__(self, name, Index(rule for rule in self.rules if rule.action is action))
