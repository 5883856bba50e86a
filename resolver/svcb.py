"""The data of SVCB and HTTPS records: what a client may learn from it.

Law: pure, and the only file that knows dnslib. It sees nothing that `message` has not checked, and what it says is
checked again here: keys strictly ascending, lengths that fit (RFC 9460 2.2), for dnslib asks neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import dnslib

from policy.values import Address, address

MANDATORY, IPV4HINT, ECH, IPV6HINT = 0, 4, 5, 6  # SvcParamKeys (RFC 9460 14.3.2)
_HINT_SIZE: Final = {IPV4HINT: 4, IPV6HINT: 16}  # RFC 9460 7.3
_KEY_SIZE: Final = 2


class ServiceError(ValueError):
    """Record data that is not a well-formed SVCB or HTTPS value."""


@dataclass(frozen=True, slots=True)
class Service:
    """Record data fit for a client, and the addresses that it still hints at."""

    data: bytes
    hints: tuple[Address, ...]


def scrub(data: bytes, keep: Callable[[bytes], bool]) -> Service:
    """`data` without ECH keys (a peek could not see the name behind them) and without refused address hints.

    `keep` is asked about each hint, 4 or 16 octets. Raises ServiceError.
    """
    record = _parse(data)
    hints: list[Address] = []
    params: dict[int, bytes] = {}
    for key, value in record.params:
        if key in _HINT_SIZE:
            kept = [raw for raw in _split(bytes(value), _HINT_SIZE[key]) if keep(raw)]
            hints += [address(raw) for raw in kept]
            if kept:
                params[key] = b"".join(kept)
        elif key != ECH:
            params[key] = bytes(value)
    record.params = _without_missing(params)
    out = dnslib.DNSBuffer()
    record.pack(out)
    return Service(bytes(out.data), tuple(hints))


def _parse(data: bytes) -> dnslib.HTTPS:
    try:
        record = dnslib.HTTPS.parse(dnslib.DNSBuffer(data), len(data))
    except dnslib.DNSError as error:
        raise ServiceError(str(error)) from None
    keys = [key for key, _ in record.params]
    if any(a >= b for a, b in pairwise(keys)):
        raise ServiceError("parameter keys that don't ascend (RFC 9460 2.2)")
    if record.priority == 0:
        record.params = []  # AliasMode has none, and receivers ignore them (RFC 9460 2.4.2)
    return record


def _split(value: bytes, size: int) -> list[bytes]:
    if not value or len(value) % size:
        raise ServiceError("a list that is empty or no multiple of its items (RFC 9460 7.3, 8)")
    return [value[at : at + size] for at in range(0, len(value), size)]


def _without_missing(params: dict[int, bytes]) -> list[tuple[int, bytes]]:
    """`mandatory` may name only keys that are there, or clients throw the whole record away (RFC 9460 8)."""
    if MANDATORY in params:
        keys = _split(params.pop(MANDATORY), _KEY_SIZE)
        if kept := b"".join(key for key in keys if int.from_bytes(key) in params):
            params = {MANDATORY: kept, **params}
    return list(params.items())
