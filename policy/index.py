"""A policy, and the way from a destination to the rules that name it without asking each.

Law: an index only narrows. What it hands out names the destination, and no rule that could decide is left out; ports,
owners and methods are the decision's business.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from policy.names import Pattern, suffixes
from policy.paths import stems
from policy.rules import Rule
from policy.values import Action, Address, Network


class _Shelf:
    """The rules of one host pattern.

    `sites` holds what a query or a flow can tell apart: of URL rules that differ in path or method alone, the first.
    """

    def __init__(self) -> None:
        self.sites: list[Rule] = []
        self._urls: dict[str, list[Rule]] = {}  # by their path's stem
        self._plain: list[Rule] = []
        self._faces: set[Hashable] = set()

    def add(self, rule: Rule) -> None:
        if rule.url is None:
            self._plain.append(rule)
            self.sites.append(rule)
            return
        self._urls.setdefault(rule.url.path.stem, []).append(rule)
        face = (rule.ports, rule.who, rule.flags)
        if face not in self._faces:
            self._faces.add(face)
            self.sites.append(rule)

    def at(self, path: str) -> Iterator[Rule]:
        """The rules that may match a request for this canonical path."""
        yield from self._plain
        for stem in stems(path):
            yield from self._urls.get(stem, ())


class Index:
    """Rules by the name or the network they speak of."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._exact: dict[str, _Shelf] = {}
        self._below: dict[str, _Shelf] = {}  # by base: `*.base`
        self._globs: dict[str, dict[str, dict[Pattern, _Shelf]]] = {}  # by base, then the label's literal start
        self._networks: dict[int, dict[int, dict[int, list[Rule]]]] = {4: {}, 6: {}}  # by version, host bits, prefix
        for rule in rules:
            if isinstance(rule.destination, Pattern):
                self._shelf(rule.destination).add(rule)
            else:
                self._add_network(rule, rule.destination)

    def _shelf(self, host: Pattern) -> _Shelf:
        if host.label:
            start = host.label.partition("*")[0]
            return self._globs.setdefault(host.base, {}).setdefault(start, {}).setdefault(host, _Shelf())
        table = self._below if host.deep else self._exact
        return table.setdefault(host.base, _Shelf())

    def _add_network(self, rule: Rule, network: Network) -> None:
        bits = network.max_prefixlen - network.prefixlen
        table = self._networks[network.version].setdefault(bits, {})
        table.setdefault(int(network.network_address) >> bits, []).append(rule)

    def by_name(self, name: str) -> list[Rule]:
        """The rules that a query for, or a flow to, this canonical name can meet."""
        return [rule for shelf in self._shelves(name) for rule in shelf.sites]

    def each_by_name(self, name: str) -> Iterator[Rule]:
        """The same, for whoever looks at the first few alone: a host may have very many."""
        for shelf in self._shelves(name):
            yield from shelf.sites

    def by_url(self, name: str, path: str) -> Iterator[Rule]:
        """The rules that a request for this canonical path of this canonical name can meet."""
        for shelf in self._shelves(name):
            yield from shelf.at(path)

    def _shelves(self, name: str) -> list[_Shelf]:
        """One look-up a label, and one a character where labels have patterns, however many rules there are."""
        found = [self._exact[name]] if name in self._exact else []
        if self._below or self._globs:
            for base in suffixes(name):
                if base in self._below:
                    found.append(self._below[base])
                if base in self._globs:
                    found += _glob_shelves(self._globs[base], name, base)
        return found

    def by_address(self, address: Address) -> Iterator[Rule]:
        """The rules whose network holds the address: one look-up a prefix length in use."""
        number = int(address)
        for bits, table in self._networks[address.version].items():
            yield from table.get(number >> bits, ())


def _glob_shelves(starts: dict[str, dict[Pattern, _Shelf]], name: str, base: str) -> Iterator[_Shelf]:
    label = name[: -len(base) - 1].rpartition(".")[2]
    for end in range(len(label) + 1):
        for pattern, shelf in starts.get(label[:end], {}).items():
            if pattern.matches(name):
                yield shelf


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules, in the order written, with an index each for those that deny and those that allow."""

    rules: tuple[Rule, ...]
    denies: Index = field(init=False, repr=False, compare=False)
    allows: Index = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, action in (("denies", Action.DENY), ("allows", Action.ALLOW)):
            object.__setattr__(self, name, Index(rule for rule in self.rules if rule.action is action))
