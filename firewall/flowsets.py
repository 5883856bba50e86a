"""The sets of flows that go on without a new verdict: leases, and what was up before.

Law: pure text, like `ruleset`, whose chains look things up here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from firewall.bridges import STANDING_UDP
from firewall.inner import SET
from firewall.plan import Plan
from policy.values import Flow, Proto

_MOST_FLOWS: Final = 65_536  # in each set; a flow that finds no room is judged packet by packet


def flow_sets(plan: Plan) -> Iterator[str]:
    """Leases are made by `allow` and end by themselves; standing flows come with the plan. The set of inner bridges is
    the engine's to fill."""
    if plan.bridged_port is not None:
        yield f"  set {SET} {{ type ifname; }}"
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
