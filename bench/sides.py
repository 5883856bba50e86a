"""Alike network namespaces that differ in what is attached there, each with a far end that answers TCP with a reset and
drops UDP.

Law: made for one measurement; what is measured there is the caller's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dnsfw.machine import cgroups
from dnsfw.machine.namespaces import NetworkNamespace
from firewall.marks import Mark
from firewall.ruleset import JUDGED

FAR_END = "192.0.2.2"

_LINKS = """
link set lo up
link add name out type veth peer name far
link set out up
addr add 192.0.2.1/24 dev out
"""
_FAR_LINKS = """
link set lo up
link set far up
addr add 192.0.2.2/24 dev far
"""
# As in a guard: a connection's first packet is judged, a datagram with a lease isn't; here, one to DISCARD has none.
DISCARD = 9
_RULES = f"""
table inet judge {{
  chain judge {{
  type filter hook output priority {JUDGED[0] - 1}
  tcp flags & (syn | ack) == syn meta mark set {Mark.JUDGE:#x}
  udp dport {DISCARD} meta mark set {Mark.JUDGE:#x}
  }}
}}
"""
_FAR_RULES = "table inet sink { chain sink { type filter hook input priority 0; meta l4proto udp drop; }; }"


@dataclass(frozen=True, slots=True)
class Side:
    """A cgroup, a network namespace and that of its far end."""

    cgroup: Path
    network: NetworkNamespace
    far: NetworkNamespace

    def join(self) -> None:
        """Move this process there, for good."""
        cgroups.join(self.cgroup)
        self.network.enter()

    def words(self) -> list[str]:
        return [str(self.cgroup), self.network.path]


@contextmanager
def side(name: str) -> Iterator[Side]:
    with ExitStack() as stack:
        cgroup = stack.enter_context(cgroups.cgroup(f"dnsfw-bench-{os.getpid()}-{name}"))
        near, far = (stack.enter_context(NetworkNamespace()) for _ in range(2))
        with near.entered():
            _tell("ip", "-batch", "-", says=_LINKS)
            _tell("nft", "-f", "-", says=_RULES)
            _tell("ip", "link", "set", "far", "netns", far.path)
        with far.entered():
            _tell("ip", "-batch", "-", says=_FAR_LINKS)
            _tell("nft", "-f", "-", says=_FAR_RULES)
        yield Side(cgroup, near, far)


def _tell(*command: str, says: str = "") -> None:
    subprocess.run(command, input=says, text=True, check=True)
