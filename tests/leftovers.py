"""What a run or a test may have left on the machine.

Law: reads, and changes nothing. Looks where dnsfw and its tests put things: processes, named network namespaces,
cgroups, nft tables and interfaces of the current network namespace, and /run/dnsfw. What belongs to a run that lives,
somebody else's on the same machine, is not a leftover.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path


def on_this_machine() -> set[str]:
    """A line for each thing that bears our name and belongs to nobody who lives."""
    runs = set(Path("/run/dnsfw").glob("*/"))
    live = {run for run in runs if _lives(run)}
    found = {f"run {run}" for run in runs - live}
    found |= {f"network namespace {path.name}" for path in Path("/run/netns").glob("dnsfw*")}
    found |= {f"cgroup {path}" for path in _cgroups() if not _is_populated(path) and not _is_anothers(path)}
    found |= {f"interface {name}" for _, name in socket.if_nameindex() if name.startswith("dnsfw")}
    found |= {f"nft {line}" for line in _nft_tables() if "dnsfw" in line}
    return {line for line in found if not any(run.name in line for run in live)}


def processes(mark: str) -> set[str]:
    """A line for each process but ourselves whose environment has the entry `mark`."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile, or is another user's
            if int(directory.name) != os.getpid() and mark.encode() in (directory / "environ").read_bytes().split(
                b"\0"
            ):
                argv = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.add(f"process {directory.name} {argv[:100]}")
    return found


def _lives(run: Path) -> bool:
    """Whether its process still holds the lock (dnsfw/host/runs.py)."""
    try:
        with (run / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _cgroups() -> set[Path]:
    return {path for depth in ("*", "*/*") for path in Path("/sys/fs/cgroup").glob(f"{depth}dnsfw*")}


def _is_anothers(cgroup: Path) -> bool:
    """Made by tests that are run elsewhere on this machine, just now (tests/bpf/conftest.py)."""
    maker = re.match(r"dnsfw-test-(\d+)-", cgroup.name)
    return maker is not None and int(maker[1]) != os.getpid() and Path("/proc", maker[1]).exists()


def _is_populated(cgroup: Path) -> bool:
    with suppress(OSError):  # it was removed meanwhile
        return "populated 1" in (cgroup / "cgroup.events").read_text(encoding="ascii")
    return True


def _nft_tables() -> list[str]:
    try:
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError:
        return []
    return listed.stdout.splitlines()
