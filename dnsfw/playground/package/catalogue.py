"""Every way out, in groups.

Law: the table of tables.
"""

from __future__ import annotations

from dnsfw.playground.package import addresses, beside, names, packets, uring, web
from dnsfw.playground.package.way import Way

GROUPS: dict[str, tuple[Way, ...]] = {
    "Through the DNS": names.WAYS,
    "Straight to an address": addresses.WAYS,
    "Through TLS": web.WAYS,
    "Under or beside TCP and UDP": (*packets.WAYS, *uring.WAYS),
    "Around the guard": beside.WAYS,
}
WAYS = tuple(way for group in GROUPS.values() for way in group)
