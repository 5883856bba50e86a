"""The ruleset as text.

Law: pure: a Plan in, nft(8) text out, nothing applied. The golden files in tests/firewall show what each plan gives.

The way of a packet out: `judge` gives it a state (marks.Mark), the queue turns JUDGE into a verdict, `steer` redirects,
`enforce` acts. Closed is the shape of it: every packet starts as JUDGE, and `enforce` drops what it has no word for.
Each answer to "what passes unjudged?" is one rule of `_judge`, with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from firewall import bridges, looking
from firewall.bridges import STANDING_UDP
from firewall.looking import NOT_SYN
from firewall.marks import EXEMPT, INBOUND, MASK, ONCE, OTHERS, Mark, connection_mark
from policy.values import Flow, Proto

TABLE: Final = "inet dnsfw"

# Priorities on the output hook: conntrack is -200; -150 is iptables' mangle, whose rules may hand over for us; -100 is
# where others translate addresses (Docker does), and the first to do so wins.
_JUDGE, _QUEUE, _STEER, _ENFORCE = -151, -150, -101, 0
_ARRIVE: Final = -151  # on the input hook: before any rule that refuses, since its refusal is a reply

_MOST_FLOWS: Final = 65_536  # in each set; a flow that finds no room is judged packet by packet
_NOBODY: Final = 0xFFFF_FFFF  # (uid_t)-1: no user's, so a packet with any other uid came from a program's socket

_OF_A_GENERATION: Final = ("swift", "known", "keep", "peeked", "inspected")  # chains
_PORTS: Final = "meta l4proto { tcp, udp } th"
# A program may bind to the loopback device and send to anywhere; a host that forwards would send it on.
_TO_US: Final = 'oif "lo" fib daddr type local'
# RFC 4861 section 4, RFC 2710 section 3, RFC 3810 section 5: without these an IPv6 link is dead.
_NEIGHBOURS: Final = "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255"
_LISTENERS: Final = (
    "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } ip6 daddr ff02::/16 ip6 hoplimit 1"
)
_COUNTERS: Final = ("invalid", "refused", "unjudged", "escaped", "direct", "inbound", "forwarded", "borrowed")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the table is to do. Raises ValueError for a resolver on port 53, where redirection could not be told.

    The resolver listens on `resolver_port` of 127.0.0.1 and ::1, and so does the proxy on `proxy_port`; without one,
    INSPECT denies. `exempt_uids` are the engine's and the proxy's own users where these live in the guarded namespace,
    () where they live outside. `inbound` "closed" takes nothing new but on loopback; "open"
    leaves inbound connections and their replies alone. `standing` flows (from this host's end) were up before the
    start and go on, and so do `passing` ones, which are forwarded. `lease` is in seconds: how long a UDP flow goes on
    before its next packet is judged again. With a `bridged_port`, where the resolver listens on every address, what is
    forwarded is judged too; without, nothing is forwarded that isn't published.
    """

    resolver_port: int
    queue: int
    audit: bool = False
    inbound: Literal["open", "closed"] = "closed"
    exempt_uids: tuple[int, ...] = ()
    standing: tuple[Flow, ...] = ()
    generation: int = 0
    lease: int = 30
    proxy_port: int | None = None
    bridged_port: int | None = None
    passing: tuple[Flow, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.resolver_port < 65536 or self.resolver_port == 53:
            raise ValueError(f"not a port for the resolver behind a redirection: {self.resolver_port}")
        if not 0 <= self.queue < 65536 or self.lease <= 0:
            raise ValueError(f"no such queue or lease: {self.queue}, {self.lease} s")
        if self.proxy_port is not None and (
            not 0 < self.proxy_port < 65536 or self.proxy_port in {53, self.resolver_port}
        ):
            raise ValueError(f"not a port for the proxy behind a redirection: {self.proxy_port}")


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
    lines += _sets(plan)
    lines += _leaves(plan)
    # Only `enforce` ends a packet's way: what the others leave alone is JUDGE, or has a state already.
    lines += _hook("judge", f"filter hook output priority {_JUDGE}", "accept", _judge(plan))
    if queue_in_nft:
        lines += _hook("hand_over", f"filter hook output priority {_QUEUE}", "accept", [_hand_over(plan)])
    lines += _hook("steer", f"nat hook output priority {_STEER}", "accept", _steer(plan))
    default = "accept" if plan.audit else "drop"
    if plan.bridged_port is not None:
        lines += _bridged(plan, plan.bridged_port, queue_in_nft=queue_in_nft)
    lines += _hook("enforce", f"filter hook output priority {_ENFORCE}", default, _enforce(plan))
    if plan.inbound == "open":
        lines += _hook("arrive", f"filter hook input priority {_ARRIVE}", "accept", [_arrival()])
    if not plan.audit:
        lines += _hook("leave", f"filter hook postrouting priority {_ENFORCE}", "accept", _leave())
        lines += _inbound(plan)
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
    rules = [line for name, rules in chains.items() for line in _chain(name, rules)]
    return "\n".join([*lines, *([f"table {TABLE} {{", *rules, "}"] if on else []), ""])


def counters(listed: str) -> dict[str, int]:
    """Packets by counter, from what `list counters table inet dnsfw` prints."""
    found = re.finditer(r"counter (\w+) \{\s+packets (\d+) ", listed)
    return {name: int(packets) for name, packets in (match.groups() for match in found)}


def _hand_over(plan: Plan) -> str:
    return f"{_is(Mark.JUDGE)} queue {'flags bypass ' if plan.audit else ''}to {plan.queue}"


def _is(mark: Mark) -> str:
    return f"meta mark & {MASK:#x} == {mark:#x}"


def _becomes(mark: int) -> str:
    return f"meta mark set meta mark & {OTHERS:#x} | {mark:#x}"


def _chain(name: str, rules: Iterable[str]) -> Iterator[str]:
    yield f"  chain {name} {{"
    yield from (f"    {rule}" for rule in rules)
    yield "  }"


def _hook(name: str, hook: str, default: str, rules: Iterable[str]) -> Iterator[str]:
    yield from _chain(name, [f"type {hook}; policy {default};", *rules])


def _sets(plan: Plan) -> Iterator[str]:
    """Leases are made by `allow` and end by themselves; standing flows come with the plan."""
    for version, address in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        ends = f"{address} . inet_service . {address} . inet_service"
        bounds = f"flags dynamic,timeout; size {_MOST_FLOWS};"
        yield f"  set lease{version} {{ type {ends}; {bounds} timeout {plan.lease}s; }}"
        yield _flows(f"standing{version}", ends, [flow for flow in plan.standing if flow.src.version == version])
        if plan.bridged_port is not None:
            yield _flows(f"passing{version}", ends, [flow for flow in plan.passing if flow.src.version == version])


def _flows(name: str, ends: str, flows: list[Flow]) -> str:
    elements = f" elements = {{ {', '.join(map(_element, flows[:_MOST_FLOWS]))} }};" if flows else ""
    return f"  set {name} {{ type inet_proto . {ends}; flags dynamic,timeout; size {_MOST_FLOWS};{elements} }}"


def _element(flow: Flow) -> str:
    expires = f" timeout {STANDING_UDP}s" if flow.proto == Proto.UDP else ""
    return f"{Proto(flow.proto).name.lower()} . {flow.src} . {flow.sport} . {flow.dst} . {flow.dport}{expires}"


def _leaves(plan: Plan) -> Iterator[str]:
    """The chains that others end in. Nothing of our field stays on a packet that goes on."""
    yield from _generation(plan.generation)
    yield from _chain("pass", [_becomes(Mark.PASS), "accept"])
    yield from _chain("clear", [f"meta mark set meta mark & {OTHERS:#x}", "accept"])
    # At once, so that a program fails instead of hanging.
    refuse = ["counter name refused", "meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"]
    yield from _chain("refuse", refuse)
    yield from _chain("needed", _needed())
    # What goes elsewhere escaped `steer`: its connection is older than our table, or somebody else translated it.
    steered = f"{_PORTS} dport {plan.resolver_port} fib daddr type local goto clear"
    yield from _chain("redirected", ["goto clear"] if plan.audit else [steered, "counter name escaped goto refuse"])
    yield from _chain("allow", _allow())
    yield from _chain("once", ["jump keep", "goto clear"])
    if plan.bridged_port is not None:
        yield from _chain("turn_back", bridges.turning_back())
        yield from _chain("turned", bridges.turned(_NOBODY)[1])
    yield from _chain("empty", looking.empty())
    yield from _chain("peek", looking.peek(audit=plan.audit))
    if plan.proxy_port is not None:
        yield from _chain("inspect", looking.inspect(plan.proxy_port, audit=plan.audit))


def _generation(generation: int, former: int | None = None) -> Iterator[str]:
    """All that depends on it. A first packet is always judged: an old connection may have had the same ports."""
    generations = (generation,) if former is None else (generation, former)
    valid = looking.opened(Mark.ALLOW, generations)
    # Nearly every packet of a judged connection ends here: with no option and no extension header nothing hides in it.
    plain = ("ip hdrlength 5", "ip6 nexthdr tcp")
    yield from _chain("swift", [f"{valid} {header} {NOT_SYN} goto pass" for header in plain])
    always = [f"{valid} {NOT_SYN} goto pass", f"{valid} meta l4proto != {{ tcp, udp }} goto pass"]
    yield from _chain("known", [*always, *looking.kept(generations)])
    yield from _chain("keep", [f"ct mark set ct mark & {OTHERS:#x} | {connection_mark(Mark.ALLOW, generation):#x}"])
    for name, rules in looking.remembering(generation):
        yield from _chain(name, rules)


def _judge(plan: Plan) -> Iterator[str]:
    yield "jump swift"
    yield _becomes(Mark.JUDGE)  # whatever a program set (SO_MARK) is gone
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
        yield bridges.turned(_NOBODY)[0]
    yield f"{_PORTS} dport 53 {_becomes(Mark.DNS)} accept"
    yield f"{_TO_US} goto pass"
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
    yield f"meta skuid != {_NOBODY} return"  # matches whatever came from a program's socket
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
    yield f"meta l4proto {{ tcp, udp }} {_is(Mark.DNS)} redirect to :{plan.resolver_port}"
    if plan.proxy_port is not None:
        yield f"meta l4proto tcp {_is(Mark.INSPECT)} redirect to :{plan.proxy_port}"


def _enforce(plan: Plan) -> Iterator[str]:
    denied = "allow" if plan.audit else "refuse"
    inspect = denied if plan.proxy_port is None else "inspect"
    states: dict[int, str] = {Mark.PASS: "clear", Mark.DNS: "redirected", Mark.ALLOW: "allow", ONCE: "once"}
    states |= {Mark.PEEK: "peek", Mark.INSPECT: inspect, Mark.DENY: denied}
    words = ", ".join(f"{mark:#x} : goto {chain}" for mark, chain in states.items())
    yield f"meta mark & {MASK:#x} vmap {{ {words} }}"
    yield "goto clear" if plan.audit else "counter name unjudged"


def _bridged(plan: Plan, port: int, *, queue_in_nft: bool) -> Iterator[str]:
    """The way of a packet through the host, beside the way out of it."""
    yield from _hook("arrive_by", f"filter hook prerouting priority {_JUDGE}", "accept", bridges.arriving())
    yield from _hook("steer_by", f"nat hook prerouting priority {_STEER}", "accept", bridges.steering(port))
    judging = bridges.judging(audit=plan.audit, lease=_leased())
    yield from _hook("judge_by", f"filter hook forward priority {_JUDGE}", "accept", judging)
    if queue_in_nft:
        yield from _hook("hand_over_by", f"filter hook forward priority {_QUEUE}", "accept", [_hand_over(plan)])
    default = "accept" if plan.audit else "drop"
    yield from _hook(
        "forward", f"filter hook forward priority {_ENFORCE}", default, bridges.enforcing(audit=plan.audit)
    )


def _leave() -> Iterator[str]:
    """What is bound to a device (SO_BINDTODEVICE) and redirected would go out of it to a loopback address, which no
    host may send (RFC 1122 section 3.2.1.3)."""
    for loopback in ("ip daddr 127.0.0.0/8", "ip6 daddr ::1"):
        yield f'oif != "lo" {loopback} counter name escaped drop'


def _inbound(plan: Plan) -> Iterator[str]:
    """Outsiders are dropped, not refused: the refusals would be packets of ours to judge, at their pace."""
    closed = plan.inbound == "closed"
    # Only what was redirected reaches the resolver, whatever local address it was tried on.
    ours = [
        "ct direction reply accept",  # a client elsewhere may have that port by chance
        "meta l4proto { tcp, udp } ct original proto-dst 53 accept",
        'iif "lo" counter name direct goto refuse',
        "counter name direct drop",
    ]
    yield from _chain("resolver", ours)
    ports = {plan.resolver_port, plan.bridged_port} - {None}
    listeners = [f"{_PORTS} dport {port} goto resolver" for port in sorted(ports, key=str)]
    if plan.proxy_port is not None:
        to_proxy, inspected = looking.reaching(plan.proxy_port)
        yield from _chain("proxy", inspected)
        listeners.append(to_proxy)
    # Nothing is established with a listener's port that its chain did not let in.
    established = ["ct state established accept"] if closed else []
    rules = [*established, *listeners, *(_closed_input() if closed else ())]
    yield from _hook("input", "filter hook input priority 0", "drop" if closed else "accept", rules)
    if plan.bridged_port is not None:
        return
    # Nothing of ours is forwarded. On a host, what was published to the outside (DNAT) and what was up goes on.
    forwarded = [] if closed else ["ct state established,related accept", "ct status dnat accept"]
    rules = [*forwarded, "counter name forwarded"]
    yield from _hook("forward", "filter hook forward priority 0", "drop", rules)


def _arrival() -> str:
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
