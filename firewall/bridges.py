"""The rules for what a host forwards: containers, virtual machines, whatever lives behind a bridge of the host's.

Law: pure text, like `ruleset`, which says where these chains stand. Which interfaces there are plays no part, so what
appears later is judged like the rest: every forwarded flow is, unless it was up before or came in by a published port.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from firewall.inner import SET
from firewall.looking import NOT_SYN
from firewall.marks import HEARD, INBOUND, MASK, ONCE, OTHERS, TURNED, Mark
from firewall.text import NOBODY, PORTS

STANDING_UDP: Final = 180  # seconds of silence that end it; conntrack's own time-out for an assured UDP flow
# Kinds of interface that hosts make for others to be behind. Their uplinks have none, or one of these and a default
# route, by which every address is told right.
_MADE_FOR_OTHERS: Final = 'meta iifkind { "bridge", "veth", "tun" }'


def arriving() -> Iterator[str]:
    """On the prerouting hook, before anybody translates: nobody borrows an address (RFC 3704), and what is sent to an
    address of ours was invited, wherever a published port leads it."""
    yield f"{_MADE_FOR_OTHERS} fib saddr . iif oif missing counter name borrowed drop"
    new = f'iif != "lo" fib daddr type local ct direction original ct mark & {MASK:#x} == 0'
    yield f"{new} ct mark set ct mark & {OTHERS:#x} | {INBOUND:#x}"


def steering(port: int) -> Iterator[str]:
    """Questions that would have gone through us. A name server of the host's own may know its containers' names, and
    is itself no exception."""
    yield f"{_MADE_FOR_OTHERS} fib daddr type unicast {PORTS} dport 53 redirect to :{port}"


def judging(*, audit: bool, lease: Iterator[str]) -> Iterator[str]:
    """As `judge`, for packets of others. There is no exemption."""
    yield "jump swift"
    yield f"meta mark set meta mark & {OTHERS:#x} | {Mark.JUDGE:#x}"
    yield "ip option lsrr exists accept"
    yield "ip option ssrr exists accept"
    yield "exthdr rt exists accept"
    yield "jump known"
    yield "ct direction reply goto pass"  # no name can be borrowed, so it is one
    yield f"ct mark & {MASK:#x} == {INBOUND:#x} goto pass"
    # What bridges pass from port to port and hand to IP as well (br_netfilter) is treated as where they don't.
    yield 'meta iifkind "bridge" fib daddr . iif oif exists goto pass'
    yield f"iifname @{SET} oifname @{SET} goto pass"
    if not audit:
        yield "ct state invalid counter name invalid drop"
    yield from lease
    yield from _passing()


def _passing() -> Iterator[str]:
    """What was up before: TCP until its end, UDP until it has been silent for long. Translations don't change a key."""
    for version, family in ((4, "ip"), (6, "ip6")):
        key = (
            f"meta l4proto . ct original {family} saddr . ct original proto-src"
            f" . ct original {family} daddr . ct original proto-dst"
        )
        yield f"{NOT_SYN} {key} @passing{version} goto pass"
        renewed = f"update @passing{version} {{ {key} timeout {STANDING_UDP}s }}"
        yield f"meta l4proto udp {key} @passing{version} {renewed} goto pass"


def enforcing(*, audit: bool) -> Iterator[str]:
    """INSPECT is refused: programs behind a bridge don't know the proxy's authority, nor can be made to."""
    denied = "allow" if audit else "turn_back"
    states: dict[int, str] = {Mark.PASS: "clear", Mark.ALLOW: "allow", ONCE: "once", Mark.PEEK: "peek", HEARD: "heard"}
    states |= {Mark.INSPECT: denied, Mark.DENY: denied}
    words = ", ".join(f"{mark:#x} : goto {chain}" for mark, chain in states.items())
    yield f"meta mark & {MASK:#x} vmap {{ {words} }}"
    yield "goto clear" if audit else "counter name forwarded"


def turning_back() -> Iterator[str]:
    """A refusal is a packet of our own kernel's to whoever was refused: see `turned`."""
    yield "counter name refused"
    yield f"ct mark set ct mark & {OTHERS:#x} | {TURNED:#x}"
    yield "meta l4proto tcp reject with tcp reset"
    yield "reject with icmpx admin-prohibited"


def turned() -> tuple[str, list[str]]:
    """For `judge`: how to tell such a refusal, and the chain that makes sure that no program sent it."""
    passes = [f"meta skuid != {NOBODY} return", "goto pass"]
    return f"ct mark & {MASK:#x} == {TURNED:#x} ct direction reply jump turned", passes
