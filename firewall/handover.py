"""The rule that hands packets to the queue where nft can't, as iptables-restore(8) text.

Law: pure. Our exact rules are added and our exact rules are taken away; whatever else iptables-save(8) printed is read
and left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from firewall.marks import MASK, Mark
from firewall.ruleset import Plan

CHAINS: Final = ("OUTPUT", "FORWARD")  # of the mangle table


def handover(plan: Plan, saved: str) -> str:
    """iptables-restore text, for IPv4 and IPv6 alike, that adds the rule which queues packets to be judged.

    Older ones for the same queue, found in what iptables-save printed, go at the same time. Ours is last in the chain:
    an administrator's rule there may set a mark that routes, and the queue's verdict would skip it. One that accepts
    before ours leaves the packet unjudged, and so dropped.
    """
    chains = ("OUTPUT",) if plan.bridged_port is None else CHAINS
    added = [f"-A {_handover_rule(chain, plan.queue, audit=plan.audit)}" for chain in chains]
    return _restoring([*_deletions(plan.queue, saved), *added])


def withdrawal(queue: int, saved: str) -> str:
    """iptables-restore text that takes our rules for `queue` out of what iptables-save printed; "" if there is none."""
    lines = _deletions(queue, saved)
    return _restoring(lines) if lines else ""


def chains_in(text: str) -> set[str]:
    """The chains that `withdrawal`'s text takes rules from."""
    return {line.split()[1] for line in text.splitlines() if line.startswith("-D ")}


def _restoring(lines: Iterable[str]) -> str:
    return "\n".join(["*mangle", *lines, "COMMIT", ""])


def _deletions(queue: int, saved: str) -> list[str]:
    ours = {f"-A {_handover_rule(chain, queue, audit=audit)}" for chain in CHAINS for audit in (False, True)}
    return [f"-D {line.removeprefix('-A ')}" for line in saved.splitlines() if line in ours]


def _handover_rule(chain: str, queue: int, *, audit: bool) -> str:
    """As iptables-save prints it, so that it can be found again."""
    mark = f"{Mark.JUDGE:#x}/{MASK:#x}"
    bypass = " --queue-bypass" if audit else ""
    return f"{chain} -m mark --mark {mark} -m comment --comment dnsfw -j NFQUEUE --queue-num {queue}{bypass}"
