"""The ruleset as text.

Law: pure: a Plan in, nft or iptables-restore text out, nothing applied. Golden files show what each plan gives.

The way of a packet: `judge` marks what needs a verdict, the queue gives one, `steer` redirects, `enforce` acts. Closed
is the shape of it: `enforce` drops what nothing before it accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from firewall.marks import MASK, OTHERS, Mark, connection_mark
from policy.values import Flow

TABLE: Final = "inet dnsfw"
_LEASE_SECONDS: Final = 30
_LEASES: Final = 65_536
_FIELD: Final = f"meta mark & {MASK:#x}"
# RFC 4861 and RFC 3810: without these an IPv6 link doesn't work. None of them is forwarded by a router.
_NEIGHBOURS: Final = (
    "nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld-listener-done, mld2-listener-report"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the table is to do.

    `exempt_uid` is the engine's own user where it shares the guarded namespace, None where it lives outside.
    `inbound` "closed" takes nothing new from outside; "open" leaves inbound connections and their replies alone.
    `standing` are flows that were up before the start and go on.
    """

    resolver_port: int
    queue: int
    audit: bool = False
    inbound: Literal["open", "closed"] = "closed"
    exempt_uid: int | None = None
    standing: tuple[Flow, ...] = ()
    generation: int = 1


def render(plan: Plan, *, queue_in_nft: bool) -> str:
    """nft text that replaces our table by the plan's, in one transaction.

    `queue_in_nft`: the kernel has nft's queue statement; otherwise `handover` is needed as well.
    """
    lines = [
        f"table {TABLE}",  # so that the next line has something to delete
        f"delete table {TABLE}",
        f"table {TABLE} {{",
        *_sets(plan.standing),
        *_chain("judge", "type filter hook output priority -151; policy accept;", _judge(plan, queue_in_nft)),
        *_chain("steer", "type nat hook output priority -100; policy accept;", _steer(plan)),
        *_chain("deny", "", _deny()),
        *_chain("enforce", f"type filter hook output priority 0; policy {_default(plan)};", _enforce(plan)),
        *(_closed_inbound() if plan.inbound == "closed" else ()),
        "}",
    ]
    return "\n".join(lines) + "\n"


def handover(plan: Plan, *, verb: Literal["-I", "-D"]) -> str:
    """iptables-restore text (for IPv4 and IPv6 alike) that puts marked packets on the queue, or takes that back.

    First in the chain, so that no other rule accepts them before. For kernels without NFT_QUEUE.
    """
    bypass = " --queue-bypass" if plan.audit else ""
    rule = f"OUTPUT -m mark --mark {Mark.JUDGE:#x}/{MASK:#x} -j NFQUEUE --queue-num {plan.queue}{bypass}"
    return f"*mangle\n{verb} {rule}\nCOMMIT\n"


def _default(plan: Plan) -> str:
    return "accept" if plan.audit else "drop"


def _sets(standing: Iterable[Flow]) -> Iterator[str]:
    flows = tuple(standing)
    for version, family in ((4, "ip"), (6, "ip6")):
        key = f"{family} saddr . udp sport . {family} daddr . udp dport"
        yield f"  set leases{version} {{"
        yield f"    typeof {key}"
        yield f"    flags dynamic,timeout; timeout {_LEASE_SECONDS}s; size {_LEASES};"
        yield "  }"
        yield f"  set standing{version} {{"
        yield f"    typeof {family} saddr . meta l4proto . th sport . {family} daddr . th dport"
        elements = ", ".join(_element(flow) for flow in flows if flow.src.version == version)
        if elements:
            yield f"    elements = {{ {elements} }}"
        yield "  }"


def _element(flow: Flow) -> str:
    return f"{flow.src} . {flow.proto} . {flow.sport} . {flow.dst} . {flow.dport}"


def _chain(name: str, hook: str, rules: Iterable[str]) -> Iterator[str]:
    yield f"  chain {name} {{"
    if hook:
        yield f"    {hook}"
    for rule in rules:
        yield f"    {rule}"
    yield "  }"


def _judge(plan: Plan, queue_in_nft: bool) -> Iterator[str]:  # noqa: FBT001
    """Marks every packet PASS or JUDGE, having wiped what a program may have set (SO_MARK)."""
    yield f"meta mark set meta mark & {OTHERS:#x}"
    if plan.exempt_uid is not None:
        yield _passes(f"meta skuid {plan.exempt_uid}")
    yield _passes('oifname "lo"')
    for version, family in ((4, "ip"), (6, "ip6")):
        yield _passes(f"{family} saddr . meta l4proto . th sport . {family} daddr . th dport @standing{version}")
    if not plan.audit:
        yield "ct state invalid drop"
    # Replies: to what came in, or an error about it. What we let out is in the original direction.
    yield _passes("ct direction reply")
    yield _passes("meta l4proto { icmp, icmpv6 } ct state related")
    yield _passes("meta l4proto { tcp, udp } th dport 53")
    allowed = connection_mark(Mark.ALLOW, plan.generation)
    yield _passes(f"ct mark & {MASK:#x} == {allowed:#x}")
    for version, family in ((4, "ip"), (6, "ip6")):
        key = f"{family} saddr . udp sport . {family} daddr . udp dport"
        yield _passes(f"meta l4proto udp {key} @leases{version}")
    yield _passes(f"icmpv6 type {{ {_NEIGHBOURS} }}")
    yield _passes("ip protocol igmp ip ttl 1")
    yield f"meta mark set meta mark | {Mark.JUDGE:#x}"
    if queue_in_nft:
        yield f"queue num {plan.queue}{' bypass' if plan.audit else ''}"


def _passes(match: str) -> str:
    return f"{match} meta mark set meta mark | {Mark.PASS:#x} accept"


def _steer(plan: Plan) -> Iterator[str]:
    """Port 53 goes to our resolver, wherever it was sent, before anything else is steered."""
    if plan.exempt_uid is not None:
        yield f"meta skuid {plan.exempt_uid} accept"
    yield f"meta l4proto {{ tcp, udp }} th dport 53 redirect to :{plan.resolver_port}"


def _deny() -> Iterator[str]:
    """At once, so that a program fails instead of hanging."""
    yield "meta l4proto tcp reject with tcp reset"
    yield "reject with icmpx admin-prohibited"


def _enforce(plan: Plan) -> Iterator[str]:
    """Accepts by mark; what is left over was not judged, and meets the chain's policy."""
    if plan.exempt_uid is not None:
        yield f"meta skuid {plan.exempt_uid} accept"
    port = plan.resolver_port
    # Only what was redirected reaches our resolver, on whatever local address it was tried.
    yield (
        f"meta l4proto {{ tcp, udp }} th dport {port} fib daddr type local ct direction original "
        "ct original proto-dst != 53 goto deny"
    )
    yield f"meta l4proto {{ tcp, udp }} th dport 53 ct direction original goto deny"  # escaped redirection
    yield f"{_FIELD} == {Mark.PASS:#x} accept"
    for version, family in ((4, "ip"), (6, "ip6")):
        key = f"{family} saddr . udp sport . {family} daddr . udp dport"
        yield f"{_FIELD} == {Mark.ALLOW:#x} meta l4proto udp update @leases{version} {{ {key} }} accept"
    keep = f"ct mark & {OTHERS:#x} | {connection_mark(Mark.ALLOW, plan.generation):#x}"
    yield f"{_FIELD} == {Mark.ALLOW:#x} meta l4proto != udp ct mark set {keep} accept"
    if not plan.audit:
        yield f"{_FIELD} == {Mark.DENY:#x} goto deny"


def _closed_inbound() -> Iterator[str]:
    """For a namespace of our own: nobody has business coming in, and nothing is passed on."""
    rules = (
        'iifname "lo" accept',
        "ct state established,related accept",
        "icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept",
    )
    yield from _chain("input", "type filter hook input priority 0; policy drop;", rules)
    yield from _chain("forward", "type filter hook forward priority 0; policy drop;", ())
