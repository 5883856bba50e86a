"""Who lives where on the tiny internet: names, addresses and ports.

Law: constants only. Addresses are RFC 5737's and RFC 3849's, names RFC 6761's; every place has an IPv4 and an IPv6
address.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """One machine of the internet."""

    v4: str
    v6: str

    @property
    def addresses(self) -> tuple[str, str]:
        return (self.v4, self.v6)


# The link between the two: the laptop and the internet's router.
LAPTOP = Place("192.0.2.10", "2001:db8::10")
ROUTER = Place("192.0.2.1", "2001:db8::1")
LINK_V4_BITS, LINK_V6_BITS = 24, 64

# The good side.
GOOD_V4, GOOD_V6 = "198.51.100.0/24", "2001:db8:a::/48"
UPSTREAM = Place("198.51.100.53", "2001:db8:a::53")  # answers every name below
SECOND_UPSTREAM = Place("198.51.100.54", "2001:db8:a::54")  # the same answers
SILENT_UPSTREAM = Place("198.51.100.55", "2001:db8:a::55")  # takes every question, answers none
ALLOWED = Place("198.51.100.80", "2001:db8:a::80")  # web site, and RFC 862-867 services for benchmarks
SHARED = Place("198.51.100.99", "2001:db8:a::99")  # a CDN: *.cdn.example, and the attacker is a customer too

# The attacker's side. Every IPv6 address of the network is the attacker's, so that an address can be a message.
EVIL_V4, EVIL_V6 = "203.0.113.0/24", "2001:db8:bad::/48"
EVIL = Place("203.0.113.66", "2001:db8:bad::66")  # web site, and TCP and UDP sinks
EVIL_NAMESERVER = Place("203.0.113.53", "2001:db8:bad::53")  # DNS and DNS-over-TLS, asked directly
DOH = Place("203.0.113.8", "2001:db8:bad::8")  # DNS over HTTPS

GOOD_PLACES = (UPSTREAM, SECOND_UPSTREAM, SILENT_UPSTREAM, ALLOWED, SHARED)
EVIL_PLACES = (EVIL, EVIL_NAMESERVER, DOH)

ALLOWED_NAME = "allowed.example"
ALIAS_NAME = "www.allowed.example"  # CNAME to ALLOWED_NAME
BIG_NAME = "big.allowed.example"  # an answer that UDP must truncate
WILDCARD_ZONE = "cdn.example"
SHARED_NAME = "assets.cdn.example"
ASSETS = "/assets"  # there, what an honest build downloads
EVIL_ZONE = "evil.test"
EVIL_SHARED_NAME = "bucket.evil.test"  # the attacker's site at the SHARED address
DOH_NAME = "doh.test"

# Benchmark services at ALLOWED (RFC 862, 863, 867, 864): echo, swallow, answer and close, send for ever.
ECHO_PORT, DISCARD_PORT, DAYTIME_PORT, CHARGEN_PORT = 7, 9, 13, 19
# The attacker's sinks at EVIL and, as another customer of the same address, at SHARED.
TCP_SINK_PORTS = (22, 4444, 8443)
UDP_SINK_PORTS = (123, 443, 4444)

# On the laptop itself, outside whatever is guarded.
STUB_RESOLVER = "127.0.0.53"
PROXY_PORT = 3128
