"""Which names an address was the answer for, while their time lasts.

Law: bounded in addresses and in names an address; the caller's `now` is the only clock, and nothing outlives its time.
What is pushed out early is counted, and missing is always the safe side: no binding, no flow.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from math import inf
from typing import Final

from policy.value import Value
from policy.values import Address, Binding, address

ADDRESSES = 16_384
NAMES_PER_ADDRESS = 32
_CLEARED_EVERY: Final = 1.0  # seconds: a look through a full table takes a millisecond or two


class _Names(Value, frozen=True):
    """The names of one address. `live` is what may be said until `first`, when the first of them runs out."""

    live: tuple[str, ...]
    first: float
    last: float
    expiry: dict[str, float]


class Bindings:
    """Addresses and the names they are bound to. Times are seconds of the caller's monotonic clock.

    A table of our own: of a forwarded question's cost, a library's that ends each entry on time was a tenth.
    """

    def __init__(self, capacity_addresses: int = ADDRESSES, names_per_address: int = NAMES_PER_ADDRESS) -> None:
        self.evicted = 0  # bindings that were pushed out before their time, by either bound
        self._table: OrderedDict[bytes, _Names] = OrderedDict()  # the least recently used first
        self._capacity = capacity_addresses
        self._names_per_address = names_per_address
        self._now = self._cleared_at = -inf

    def __len__(self) -> int:
        """How many addresses are bound."""
        return sum(self._now < known.last for known in self._table.values())

    def live(self, now: float, most: int = ADDRESSES) -> Iterator[Binding]:
        """What is bound at `now` to the `most` addresses that stay bound longest, the longest last. That is no use."""
        for key, known in sorted(self._table.items(), key=lambda pair: pair[1].last)[-most:]:
            for name, until in _alive(known.expiry, now).items():
                yield Binding(name, address(key), until)

    def bind(self, name: str, answers: Iterable[tuple[Address, float]], now: float) -> bool:
        """Bind canonical `name` to each address for its time to live in seconds. A later answer never shortens one.
        Has any of them gained?"""
        self._now = now
        gained = False
        for each, ttl in answers:
            if ttl > 0 and self._bind(name, each.packed, now + ttl):
                gained = True
        return gained

    def _bind(self, name: str, key: bytes, until: float) -> bool:
        table = self._table
        known = table.get(key)
        if known is None:
            table[key] = _Names((name,), until, until, {name: until})
            if len(table) > self._capacity:
                self._make_room()
            return True
        table.move_to_end(key)
        if known.expiry.get(name, 0.0) >= until:
            return False  # the usual case where a cached answer is repeated
        table[key] = self._with(known, name, until)
        return True

    def _with(self, known: _Names, name: str, until: float) -> _Names:
        """The same with one name more, or for longer."""
        expiry = _alive(known.expiry, self._now)
        until = max(until, expiry.pop(name, until))
        if len(expiry) >= self._names_per_address:
            del expiry[min(expiry, key=expiry.__getitem__)]
            self.evicted += 1
        expiry[name] = until
        return _Names(tuple(expiry), min(expiry.values()), max(expiry.values()), expiry)

    def _make_room(self) -> None:
        """For one address: what ran out goes, all at once and at most once a second; else the least recently used."""
        if self._now - self._cleared_at >= _CLEARED_EVERY:
            self._cleared_at = self._now
            for key in [key for key, known in self._table.items() if known.last <= self._now]:
                del self._table[key]
        if len(self._table) > self._capacity:
            _, known = self._table.popitem(last=False)
            self.evicted += len(_alive(known.expiry, self._now))

    def names(self, address: Address, now: float) -> tuple[str, ...]:
        """The names bound to `address` at `now`, the latest last. Looking counts as use."""
        self._now = now
        key = address.packed
        known = self._table.get(key)
        if known is None:
            return ()
        self._table.move_to_end(key)
        return known.live if now < known.first else tuple(_alive(known.expiry, now))


def _alive(expiry: dict[str, float], now: float) -> dict[str, float]:
    return {name: until for name, until in expiry.items() if now < until}
