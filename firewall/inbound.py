"""The rules for what comes in, and for what must not go by the wrong way.

Law: pure text, like `ruleset`, which says where these chains stand. Our listeners' ports are for what was redirected.
"""

from __future__ import annotations

from collections.abc import Iterator

from firewall import looking
from firewall.marks import INBOUND, MASK, OTHERS
from firewall.plan import Plan
from firewall.text import PORTS, chain, hook


def leaving() -> Iterator[str]:
    """What is bound to a device (SO_BINDTODEVICE) and redirected would go out of it to a loopback address, which no
    host may send (RFC 1122 section 3.2.1.3)."""
    for loopback in ("ip daddr 127.0.0.0/8", "ip6 daddr ::1"):
        yield f'oif != "lo" {loopback} counter name escaped drop'


def entering(plan: Plan) -> Iterator[str]:
    """Outsiders are dropped, not refused: the refusals would be packets of ours to judge, at their pace."""
    closed = plan.inbound == "closed"
    # Only what was redirected reaches the resolver, whatever local address it was tried on.
    ours = [
        "ct direction reply accept",  # a client elsewhere may have that port by chance
        "meta l4proto { tcp, udp } ct original proto-dst 53 accept",
        'iif "lo" counter name direct goto refuse',
        "counter name direct drop",
    ]
    yield from chain("resolver", ours)
    ports = {plan.resolver_port, plan.bridged_port} - {None}
    listeners = [f"{PORTS} dport {port} goto resolver" for port in sorted(ports, key=str)]
    if plan.proxy_port is not None:
        to_proxy, inspected = looking.reaching(plan.proxy_port)
        yield from chain("proxy", inspected)
        listeners.append(to_proxy)
    # Nothing is established with a listener's port that its chain did not let in.
    established = ["ct state established accept"] if closed else []
    rules = [*established, *listeners, *(_closed_input() if closed else ())]
    yield from hook("input", "filter hook input priority 0", "drop" if closed else "accept", rules)
    if plan.bridged_port is not None:
        return
    # Nothing of ours is forwarded. On a host, what was published to the outside (DNAT) and what was up goes on.
    forwarded = [] if closed else ["ct state established,related accept", "ct status dnat accept"]
    rules = [*forwarded, "counter name forwarded"]
    yield from hook("forward", "filter hook forward priority 0", "drop", rules)


def arrival() -> str:
    """Replies go on to what really came in. A program may send to us in any IPv6 address's name (IPV6_FREEBIND), but
    on loopback."""
    new = f'iif != "lo" ct direction original ct mark & {MASK:#x} == 0'
    return f"{new} ct mark set ct mark & {OTHERS:#x} | {INBOUND:#x}"


def _closed_input() -> Iterator[str]:
    yield 'iif "lo" accept'
    yield "meta l4proto { icmp, icmpv6 } ct state related accept"
    yield ("icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept")
    yield "icmpv6 type mld-listener-query ip6 hoplimit 1 accept"
    yield "counter name inbound"
