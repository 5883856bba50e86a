"""Which names an address was the answer for, while their time lasts.

Law: bounded in addresses and in names an address; the caller's `now` is the only clock, and nothing outlives its time.
What is pushed out early is counted, and missing is always the safe side: no binding, no flow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cachetools import Cache, TLRUCache

from policy.values import Address, Binding, address

ADDRESSES = 16_384
NAMES_PER_ADDRESS = 32


class _Names(NamedTuple):
    """The names of one address. `live` is what may be said until `first`, when the first of them runs out."""

    live: tuple[str, ...]
    first: float
    last: float
    expiry: dict[str, float]


class _Table(TLRUCache[bytes, _Names]):
    """A table whose clock is set by hand: `now` is what the caller last said."""

    def __init__(self, capacity: int) -> None:
        self.now = 0.0
        self.evicted = 0
        super().__init__(capacity, ttu=lambda _key, names, _now: names.last, timer=lambda: self.now)

    def popitem(self) -> tuple[bytes, _Names]:
        """The least recently used entry, pushed out while still alive."""
        key, names = super().popitem()
        self.evicted += len(names.expiry)
        return key, names


class Bindings:
    """Addresses and the names they are bound to. Times are seconds of the caller's monotonic clock."""

    def __init__(self, capacity_addresses: int = ADDRESSES, names_per_address: int = NAMES_PER_ADDRESS) -> None:
        self._table = _Table(capacity_addresses)
        self._names_per_address = names_per_address
        self._crowded_out = 0

    @property
    def evicted(self) -> int:
        """How many bindings were pushed out before their time, by either bound."""
        return self._table.evicted + self._crowded_out

    def __len__(self) -> int:
        return len(self._table)

    def live(self, now: float, most: int = ADDRESSES) -> Iterator[Binding]:
        """What is bound at `now` to the `most` addresses that stay bound longest, the longest last. That is no use."""
        self._table.now = now
        held = [(key, Cache.__getitem__(self._table, key)) for key in self._table]
        for key, known in sorted(held, key=lambda pair: pair[1].last)[-most:]:
            for name, until in _alive(known.expiry, now).items():
                yield Binding(name, address(key), until)

    def bind(self, name: str, answers: Iterable[tuple[Address, float]], now: float) -> bool:
        """Bind canonical `name` to each address for its time to live in seconds. A later answer never shortens one.
        Has any of them gained?"""
        self._table.now = now
        gained = False
        for each, ttl in answers:
            if ttl > 0 and self._bind(name, each.packed, now + ttl):
                gained = True
        return gained

    def _bind(self, name: str, key: bytes, until: float) -> bool:
        known = self._table.get(key)
        if known is not None and known.expiry.get(name, 0.0) >= until:
            return False  # the usual case where a cached answer is repeated
        expiry = _alive(known.expiry, self._table.now) if known else {}
        until = max(until, expiry.pop(name, until))
        if len(expiry) >= self._names_per_address:
            del expiry[min(expiry, key=expiry.__getitem__)]
            self._crowded_out += 1
        expiry[name] = until
        self._table[key] = _names(expiry)
        return True

    def names(self, address: Address, now: float) -> tuple[str, ...]:
        """The names bound to `address` at `now`, the latest last. Looking counts as use."""
        self._table.now = now
        known = self._table.get(address.packed)
        if known is None:
            return ()
        return known.live if now < known.first else tuple(_alive(known.expiry, now))


def _alive(expiry: dict[str, float], now: float) -> dict[str, float]:
    return {name: until for name, until in expiry.items() if now < until}


def _names(expiry: dict[str, float]) -> _Names:
    return _Names(tuple(expiry), min(expiry.values()), max(expiry.values()), expiry)
