"""Addresses that a public name must not resolve to.

Law: one table and one look-up, nothing else. Source: the IANA IPv4 and IPv6 special-purpose address registries
(RFC 6890), with the addresses that embed another one (RFC 6052, RFC 3056, RFC 4380) judged as unfit as a whole: a
name that needs them can be given `private` by its rule.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Final

from policy.values import Network

# Left out on purpose: the documentation networks (RFC 5737, RFC 3849). Nothing of value ever listens there, and they
# are the addresses of our own test worlds.
_SPECIAL: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # "this network": reaches the own host on Linux (RFC 791 3.2)
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # carrier-grade NAT, and a cloud's metadata at 100.100.100.200 (RFC 6598)
        "127.0.0.0/8",  # loopback (RFC 1122 3.2.1.3)
        "168.63.129.16/32",  # a cloud's host agent and metadata, on a public address
        "169.254.0.0/16",  # link-local, clouds' metadata at 169.254.169.254 (RFC 3927)
        "172.16.0.0/12",  # private (RFC 1918)
        "192.0.0.0/24",  # IETF protocol assignments (RFC 6890 2.1)
        "192.88.99.0/24",  # 6to4 relays, deprecated (RFC 7526)
        "192.168.0.0/16",  # private (RFC 1918)
        "198.18.0.0/15",  # benchmarking (RFC 2544): an uplink of our own has the host at its other end there
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",  # reserved, and the limited broadcast address (RFC 1112 4, RFC 919 7)
        "::/8",  # unspecified, loopback, v4-compatible, v4-mapped, v4-translated (RFC 4291 2.5, RFC 2765)
        "64:ff9b::/96",  # NAT64: any IPv4 address inside (RFC 6052 2.1)
        "64:ff9b:1::/48",  # NAT64 for local use (RFC 8215)
        "100::/64",  # discard (RFC 6666)
        "2001::/32",  # Teredo: an IPv4 address and port inside (RFC 4380)
        "2002::/16",  # 6to4: an IPv4 address inside (RFC 3056)
        "5f00::/16",  # segment routing identifiers (RFC 9602)
        "fc00::/7",  # unique local, clouds' metadata at fd00:ec2::254 (RFC 4193)
        "fe80::/10",  # link-local (RFC 4291 2.5.6)
        "fec0::/10",  # site-local, deprecated (RFC 3879)
        "ff00::/8",  # multicast (RFC 4291 2.7)
    )
)


def _by_first_octet(bits: int) -> dict[int, tuple[tuple[int, int], ...]]:
    """The networks, as mask and number, that an address of so many bits may lie in, going by its first octet."""
    places = dict[int, tuple[tuple[int, int], ...]]()
    for each in _SPECIAL:
        if each.max_prefixlen == bits:
            for octet in range(each[0].packed[0], each[-1].packed[0] + 1):
                places[octet] = (*places.get(octet, ()), (int(each.netmask), int(each.network_address)))
    return places


_PLACES: Final = {4: _by_first_octet(32), 16: _by_first_octet(128)}  # by an address's octets


def is_special(packed: bytes) -> bool:
    """Whether this address of 4 or 16 octets is one that only a rule with `private` lets a name resolve to."""
    near = _PLACES[len(packed)].get(packed[0])
    if near is None:  # most of the internet
        return False
    number = int.from_bytes(packed)
    return any(number & mask == network for mask, network in near)
