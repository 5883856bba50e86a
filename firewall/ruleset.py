"""The ruleset as text.

Law: pure: a Plan in, nft(8) text out, nothing applied. The golden files in tests/firewall show what each plan gives.

The way of a packet out: `judge` gives it a state (marks.Mark), the queue turns JUDGE into a verdict, `steer` redirects,
`enforce` acts. Closed is the shape of it: every packet starts as JUDGE, and `enforce` drops what it has no word for.
Each answer to "what passes unjudged?" is one rule of `_judge`, with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from firewall import bridges, inbound, looking
from firewall.bridges import STANDING_UDP
from firewall.flowsets import flow_sets
from firewall.inner import SET
from firewall.looking import NOT_SYN
from firewall.marks import EXEMPT, HEARD, INBOUND, MASK, ONCE, OTHERS, Mark, connection_mark
from firewall.plan import TABLE, Plan
from firewall.text import NOBODY, PORTS, becomes, chain, hook, marked

__all__ = ["TABLE", "Plan", "counters", "render", "renewal", "steering"]

# Priorities on the output hook: conntrack is -200; -150 is iptables' mangle, whose rules may hand over for us; -100 is
# where others translate addresses (Docker does), and the first to do so wins.
_JUDGE, _QUEUE, _STEER, _ENFORCE = -155, -150, -101, 0
JUDGED: Final = range(_JUDGE + 1, _QUEUE)  # who looks here sees packets that are JUDGE and wait for the queue
_ARRIVE: Final = -151  # on the input hook: before any rule that refuses, since its refusal is a reply


_OF_A_GENERATION: Final = ("swift", "known", "keep", "peeked", "heard", "inspected", "answered")  # chains
# A program may bind to the loopback device and send to anywhere; a host that forwards would send it on.
_TO_US: Final = 'oif "lo" fib daddr type local'
# RFC 4861 section 4, RFC 2710 section 3, RFC 3810 section 5: without these an IPv6 link is dead.
_NEIGHBOURS: Final = "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255"
_LISTENERS: Final = (
    "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } ip6 daddr ff02::/16 ip6 hoplimit 1"
)
_COUNTERS: Final = ("invalid", "refused", "unjudged", "escaped", "direct", "inbound", "forwarded", "borrowed")


def render(plan: Plan, *, queue_in_nft: bool) -> str:
    """nft text that puts our table in the place of any earlier one of ours, in one transaction.

    `queue_in_nft`: this kernel has nft's queue statement; otherwise iptables must apply `handover`'s text as well.
    """
    lines = [
        f"table {TABLE}",
        f"delete table {TABLE}",
        f"table {TABLE} {{",
    ]  # the first, so that there is one to delete
    lines += (f"  counter {name} {{ }}" for name in _COUNTERS)
    lines += flow_sets(plan)
    lines += _leaves(plan)
    # Only `enforce` ends a packet's way: what the others leave alone is JUDGE, or has a state already.
    lines += hook("judge", f"filter hook output priority {_JUDGE}", "accept", _judge(plan))
    if queue_in_nft:
        lines += hook("hand_over", f"filter hook output priority {_QUEUE}", "accept", [_hand_over(plan)])
    lines += hook("hear", f"filter hook prerouting priority {_JUDGE}", "accept", [looking.hearing()])
    lines += hook("steer", f"nat hook output priority {_STEER}", "accept", _steer(plan))
    default = "accept" if plan.audit else "drop"
    if plan.bridged_port is not None:
        lines += _bridged(plan, plan.bridged_port, queue_in_nft=queue_in_nft)
    lines += hook("enforce", f"filter hook output priority {_ENFORCE}", default, _enforce(plan))
    if plan.inbound == "open":
        lines += hook("arrive", f"filter hook input priority {_ARRIVE}", "accept", [inbound.arrival()])
    if not plan.audit:
        lines += hook("leave", f"filter hook postrouting priority {_ENFORCE}", "accept", inbound.leaving())
        lines += inbound.entering(plan)
    return "\n".join([*lines, "}", ""])


def renewal(generation: int, former: int | None = None) -> str:
    """nft text that makes `generation` the policy's, in one transaction: what earlier ones allowed is judged again, but
    for connections of the `former` one, which somebody is about to look through."""
    chains = [f"flush chain {TABLE} {name}" for name in _OF_A_GENERATION]
    sets = [f"flush set {TABLE} lease4", f"flush set {TABLE} lease6"]
    return "\n".join([*chains, *sets, f"table {TABLE} {{", *_generation(generation, former), "}", ""])


def steering(plan: Plan, *, on: bool) -> str:
    """nft text that has packets redirected as the plan says, or none at all: whoever would answer them is dead, and
    nothing is to be denied."""
    chains = {"steer": _steer(plan)}
    if plan.bridged_port is not None:
        chains["steer_by"] = bridges.steering(plan.bridged_port)
    lines = [f"flush chain {TABLE} {name}" for name in chains]
    rules = [line for name, rules in chains.items() for line in chain(name, rules)]
    return "\n".join([*lines, *([f"table {TABLE} {{", *rules, "}"] if on else []), ""])


def counters(listed: str) -> dict[str, int]:
    """Packets by counter, from what `list counters table inet dnsfw` prints."""
    found = re.finditer(r"counter (\w+) \{\s+packets (\d+) ", listed)
    return {name: int(packets) for name, packets in (match.groups() for match in found)}


def _hand_over(plan: Plan) -> str:
    return f"{marked(Mark.JUDGE)} queue {'flags bypass ' if plan.audit else ''}to {plan.queue}"


def _leaves(plan: Plan) -> Iterator[str]:
    """The chains that others end in. Nothing of our field stays on a packet that goes on."""
    yield from _generation(plan.generation)
    yield from chain("pass", [becomes(Mark.PASS), "accept"])
    yield from chain("clear", [f"meta mark set meta mark & {OTHERS:#x}", "accept"])
    # At once, so that a program fails instead of hanging.
    refuse = ["counter name refused", "meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"]
    yield from chain("refuse", refuse)
    yield from chain("needed", _needed())
    # What goes elsewhere escaped `steer`: its connection is older than our table, or somebody else translated it.
    steered = f"{PORTS} dport {plan.resolver_port} fib daddr type local goto clear"
    yield from chain("redirected", ["goto clear"] if plan.audit else [steered, "counter name escaped goto refuse"])
    yield from chain("allow", _allow())
    # An echo's connection would let the next echo pass.
    yield from chain("once", ["meta l4proto != { icmp, icmpv6 } jump keep", "goto clear"])
    if plan.bridged_port is not None:
        yield from chain("turn_back", bridges.turning_back())
        yield from chain("turned", bridges.turned()[1])
    yield from chain("empty", looking.empty())
    yield from chain("peek", looking.peek(audit=plan.audit))
    if plan.proxy_port is not None:
        yield from chain("inspect", looking.inspect(plan.proxy_port, audit=plan.audit))


def _generation(generation: int, former: int | None = None) -> Iterator[str]:
    """All that depends on it. A first packet is always judged: an old connection may have had the same ports."""
    generations = (generation,) if former is None else (generation, former)
    valid = looking.opened(Mark.ALLOW, generations)
    # Nearly every packet of a judged connection ends here: with no option and no extension header nothing hides in it.
    plain = ("ip hdrlength 5", "ip6 nexthdr tcp")
    yield from chain("swift", [f"{valid} {header} {NOT_SYN} goto pass" for header in plain])
    always = [f"{valid} {NOT_SYN} goto pass", f"{valid} meta l4proto != {{ tcp, udp }} goto pass"]
    yield from chain("known", [*always, *looking.kept(generations)])
    yield from chain("keep", [f"ct mark set ct mark & {OTHERS:#x} | {connection_mark(Mark.ALLOW, generation):#x}"])
    for name, rules in looking.remembering(generation):
        yield from chain(name, rules)
    yield from chain("answered", looking.answered(generations))


def _judge(plan: Plan) -> Iterator[str]:
    yield "jump swift"
    yield becomes(Mark.JUDGE)  # whatever a program set (SO_MARK) is gone
    # A source route's real destination is not in the header: never by habit, always to the queue, which refuses it.
    yield "ip option lsrr exists accept"
    yield "ip option ssrr exists accept"
    yield "exthdr rt exists accept"
    yield "jump known"
    yield f"{_TO_US} ct direction reply goto pass"  # the resolver's answers, to port 53 of a client too
    if plan.exempt_uids:
        # The last packets of a closing connection have no socket, and so no uid.
        exempt = f"meta skuid {{ {', '.join(map(str, plan.exempt_uids))} }}"
        yield f"ct mark & {MASK:#x} == {EXEMPT:#x} {NOT_SYN} goto pass"
        yield f"{exempt} ct mark set ct mark & {OTHERS:#x} | {EXEMPT:#x}"
        yield f"{exempt} goto pass"
    if plan.inbound == "open":
        yield f"ct direction reply ct mark & {MASK:#x} == {INBOUND:#x} goto pass"
    if plan.bridged_port is not None:
        yield bridges.turned()[0]
    yield f"{PORTS} dport 53 {becomes(Mark.DNS)} accept"
    yield f"{_TO_US} goto pass"
    if plan.bridged_port is not None:
        yield f"oifname @{SET} goto pass"  # it stays on this host
    if not plan.audit:
        yield "ct state invalid counter name invalid drop"
    yield from _leased()
    if plan.standing:
        yield from _standing()
    yield "meta l4proto { icmp, icmpv6, igmp } jump needed"
    if plan.inbound == "open":
        # Without an address there is no host. To the link alone: a refused renewal is tried there next (RFC 2131
        # section 4.4.5); DHCPv6 has nothing else (RFC 8415 section 7.1).
        yield "ip daddr 255.255.255.255 udp sport 68 udp dport 67 goto pass"
        yield "ip6 daddr ff02::1:2 udp sport 546 udp dport 547 goto pass"


def _leased() -> Iterator[str]:
    yield from (f"{packet} accept" for packet in looking.QUIC)
    for version, family in ((4, "ip"), (6, "ip6")):
        yield f"{family} saddr . udp sport . {family} daddr . udp dport @lease{version} goto pass"


def _standing() -> Iterator[str]:
    """TCP until its end, since a new connection begins with a SYN; UDP until it has been silent for long."""
    for version, family in ((4, "ip"), (6, "ip6")):
        key = f"meta l4proto . {family} saddr . th sport . {family} daddr . th dport"
        yield f"{NOT_SYN} {key} @standing{version} goto pass"
        renewed = f"update @standing{version} {{ {key} timeout {STANDING_UDP}s }}"
        yield f"meta l4proto udp {key} @standing{version} {renewed} goto pass"


def _needed() -> Iterator[str]:
    """What IP itself needs: on the link from anybody; further away from the kernel alone."""
    yield f"ip6 daddr {{ fe80::/10, ff02::/16 }} {_NEIGHBOURS} goto pass"
    yield f"{_LISTENERS} goto pass"
    yield "ip protocol igmp ip daddr 224.0.0.0/4 ip ttl 1 goto pass"  # RFC 3376 section 4
    yield f"meta skuid != {NOBODY} return"  # matches whatever came from a program's socket
    yield f"{_NEIGHBOURS} goto pass"
    # Path MTU and other errors about replies: their connection is one that we began, and was judged. About what came
    # in, see INBOUND; about what a program sent to us in a stranger's name, they would carry its data to that stranger.
    replied = "ct state related ct direction original goto pass"
    yield f"icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} {replied}"
    yield f"icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }} {replied}"


def _allow() -> Iterator[str]:
    """UDP by lease, since a socket's later packets may be another matter; the rest for the life of the connection. All
    are marked, so that a change of policy finds them."""
    for version, family in ((4, "ip"), (6, "ip6")):
        key = f"ct original {family} saddr . ct original proto-src . ct original {family} daddr . ct original proto-dst"
        yield f"meta l4proto udp update @lease{version} {{ {key} }}"
    yield "jump keep"
    yield "goto clear"


def _steer(plan: Plan) -> Iterator[str]:
    yield f"meta l4proto {{ tcp, udp }} {marked(Mark.DNS)} redirect to :{plan.resolver_port}"
    if plan.proxy_port is not None:
        yield f"meta l4proto tcp {marked(Mark.INSPECT)} redirect to :{plan.proxy_port}"


def _enforce(plan: Plan) -> Iterator[str]:
    denied = "allow" if plan.audit else "refuse"
    inspect = denied if plan.proxy_port is None else "inspect"
    states: dict[int, str] = {Mark.PASS: "clear", Mark.DNS: "redirected", Mark.ALLOW: "allow", ONCE: "once"}
    states |= {Mark.PEEK: "peek", HEARD: "heard", Mark.INSPECT: inspect, Mark.DENY: denied}
    words = ", ".join(f"{mark:#x} : goto {leaf}" for mark, leaf in states.items())
    yield f"meta mark & {MASK:#x} vmap {{ {words} }}"
    yield "goto clear" if plan.audit else "counter name unjudged"


def _bridged(plan: Plan, port: int, *, queue_in_nft: bool) -> Iterator[str]:
    """The way of a packet through the host, beside the way out of it."""
    yield from hook("arrive_by", f"filter hook prerouting priority {_JUDGE}", "accept", bridges.arriving())
    yield from hook("steer_by", f"nat hook prerouting priority {_STEER}", "accept", bridges.steering(port))
    judging = bridges.judging(audit=plan.audit, lease=_leased())
    yield from hook("judge_by", f"filter hook forward priority {_JUDGE}", "accept", judging)
    if queue_in_nft:
        yield from hook("hand_over_by", f"filter hook forward priority {_QUEUE}", "accept", [_hand_over(plan)])
    default = "accept" if plan.audit else "drop"
    yield from hook("forward", f"filter hook forward priority {_ENFORCE}", default, bridges.enforcing(audit=plan.audit))
