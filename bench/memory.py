"""Memory of everything that `dnsfw run` keeps resident beside its command, after a load."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from bench.bed import Bed, BenchError
from bench.figure import Figure, at_most, number
from dnsfw.playground import atlas

_CONNECTS = 2000
# The command: puts the load on, says so, and stays until its stdin ends.
_LOAD = """
import subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print("loaded", flush=True)
sys.stdin.read()
"""


def measure(bed: Bed) -> list[Figure]:
    client = Path(__file__).with_name("client.py")
    load = [str(client), "connects", atlas.ALLOWED_NAME, str(atlas.DISCARD_PORT), str(_CONNECTS)]
    command = [sys.executable, "-I", "-c", _LOAD, sys.executable, "-I", *load]
    with bed.popen(command, guarded=True) as run:
        if run.stdout is None or run.stdout.readline() != "loaded\n":
            raise BenchError("the command under load did not get through")
        processes = [pid for pid in family(run.pid) if _argv(pid)[: len(command)] != command]
        resident, proportional = (sum(kilobytes(pid, what) for pid in processes) / 1024 for what in ("Rss", "Pss"))
        run.communicate()
    against = (
        f"{len(processes)} processes after {_CONNECTS} connects; shared pages counted once: {number(proportional)} MB"
    )
    return [Figure("memory, resident, all together", resident, "MB", at_most(80), against)]


def family(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(member for child in children for member in family(int(child)))]


def _argv(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")


def kilobytes(pid: int, what: str) -> int:
    """A sum over the process's mappings: Rss counts a shared page in every process, Pss once in all (proc(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(rf"^{what}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def megabytes_once(pids: list[int]) -> float:
    """Resident memory of processes that share pages (a fork's, a library's), each page counted once.

    By frame number: proc(5), /proc/PID/pagemap, bits 0-54 where bit 63 says that there is one. Root alone sees them.
    """
    size = os.sysconf("SC_PAGE_SIZE")
    frames = set[int]()
    for pid in pids:
        with Path(f"/proc/{pid}/pagemap").open("rb") as pagemap:
            for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
                first, last = (int(end, 16) // size for end in line.split(" ", 1)[0].split("-"))
                pagemap.seek(8 * first)
                with suppress(OverflowError, ValueError):  # the vsyscall page is in no table
                    entries = memoryview(pagemap.read(8 * (last - first))).cast("Q")
                    frames.update(entry & (1 << 55) - 1 for entry in entries if entry >> 63)
    return len(frames - {0}) * size / (1 << 20)
