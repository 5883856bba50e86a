"""Owners under `dnsfw run`, with BPF and without: rules about programs hold either way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import PYTHON, Laptop, private

pytestmark = pytest.mark.kernel

BASH = "/usr/bin/bash"
POLICY = f"""\
{atlas.ALLOWED.v4}:{atlas.DAYTIME_PORT} exe={BASH}
{atlas.ALLOWED.v4}:{atlas.CHARGEN_PORT} cgroup=@host
{atlas.ALLOWED.v4}:{atlas.DISCARD_PORT} cgroup=@container
{atlas.ALLOWED.v4}:{atlas.ECHO_PORT} step=build
{atlas.ALLOWED_NAME} exe={BASH}
"""
PORTS = (atlas.DAYTIME_PORT, atlas.CHARGEN_PORT, atlas.DISCARD_PORT, atlas.ECHO_PORT)
CONNECT = "".join(f"exec 3<>/dev/tcp/{atlas.ALLOWED.v4}/{port} && echo {port}; " for port in PORTS)
# As on a kernel without type information, or a machine that lets nobody use BPF.
NO_BPF = "mount -t tmpfs none /sys/kernel/btf"


@pytest.mark.parametrize("arrangements", ["true", NO_BPF], ids=["BPF", "/proc"])
def test_rules_about_programs_hold(world: Playground, tmp_path: Path, arrangements: str) -> None:
    laptop, journal = Laptop(world, tmp_path), tmp_path / "journal"
    ask = f"import socket; socket.getaddrinfo({atlas.ALLOWED_NAME!r}, 80)"
    script = f"{CONNECT} {PYTHON} -c {ask!r} 2>/dev/null || echo unresolved"
    command = laptop.command(POLICY, "--journal", str(journal), command=[BASH, "-c", script])
    done = world.run(private(command, arrangements))
    assert done.stdout.split() == [str(atlas.DAYTIME_PORT), str(atlas.CHARGEN_PORT), "unresolved"]
    assert ("owners are looked for in /proc instead" in done.stderr) == (arrangements == NO_BPF)
    owners = {owner["exe"] for owner in map(_owner, journal.read_text().splitlines()) if owner}
    assert BASH in owners
    assert len(owners) == 2  # and the other's, whose name Debian resolves


def _owner(line: str) -> dict[str, Any] | None:
    owner: dict[str, Any] | None = json.loads(line).get("owner")
    return owner
