"""What a run or a test may have left on the machine.

Law: reads, and changes nothing. Looks where dnsfw and its tests put things: named network namespaces, cgroups, nft
tables, interfaces and sysctls of the current network namespace, and /run/dnsfw.
"""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

_FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


def on_this_machine() -> set[str]:
    """A line for each thing that bears our name, and for each sysctl that a run changes while it lives."""
    found = {f"network namespace {path.name}" for path in Path("/run/netns").glob("dnsfw*")}
    found |= {f"cgroup {path}" for depth in ("*", "*/*") for path in Path("/sys/fs/cgroup").glob(f"{depth}dnsfw*")}
    found |= {f"interface {name}" for _, name in socket.if_nameindex() if name.startswith("dnsfw")}
    found |= {f"{path}" for path in Path("/run/dnsfw").glob("*")}
    found |= {f"nft {line}" for line in _nft_tables() if "dnsfw" in line}
    for name in _FORWARDING:
        path = Path("/proc/sys/net", name)
        if path.exists():
            found.add(f"sysctl {name} = {path.read_text(encoding='ascii').strip()}")
    return found


def _nft_tables() -> list[str]:
    try:
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError:
        return []
    return listed.stdout.splitlines()
