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

PYTHON_FILE = str(Path(PYTHON).resolve())
BY_WHOM = f"""\
{atlas.ALLOWED.v4}/icmp exe={PYTHON_FILE}
{atlas.ALLOWED.v6}/icmp exe={PYTHON_FILE}
{atlas.SHARED.v4}/icmp exe={BASH}
{atlas.SHARED.v6}/icmp exe={BASH}
{atlas.ALLOWED.v4}:{atlas.ECHO_PORT}/udp exe={PYTHON_FILE}
[{atlas.ALLOWED.v6}]:{atlas.ECHO_PORT}/udp exe={PYTHON_FILE}
{atlas.ALLOWED_NAME}:80 exe={PYTHON_FILE}
"""
# Tries by a Python and, where it hands on a connected socket, by a bash; each says a word for what came of it.
TRY = f"""
import socket, subprocess
def tell(sock, send):
    try: send(); sock.recv(100); print("answered")
    except OSError: print("denied")
def connected(host, port=0, proto=0):
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM, proto)
    sock.settimeout(1); sock.connect((host, port)); return sock
for host in {(*atlas.ALLOWED.addresses, *atlas.SHARED.addresses)!r}:
    echo = bytes([128 if ":" in host else 8]) + bytes(7)
    with connected(host, proto=58 if ":" in host else 1) as sock: tell(sock, lambda: sock.send(echo))
def both(sock, text):
    bash = ["{BASH}", "-c", 'printf %s "$1" >&"$2"', "bash", text, str(sock.fileno())]
    yield lambda: sock.send(text.encode())
    yield lambda: subprocess.run(bash, pass_fds=[sock.fileno()], stderr=subprocess.DEVNULL)
for host in {atlas.ALLOWED.addresses!r}:
    with connected(host, {atlas.ECHO_PORT}) as sock:
        for send in both(sock, "x"): tell(sock, send)
for which in (0, 1):
    with socket.create_connection(("{atlas.ALLOWED_NAME}", 80), 1) as sock:
        tell(sock, list(both(sock, "GET / HTTP/1.0\\r\\nHost: {atlas.ALLOWED_NAME}\\r\\n\\r\\n"))[which])
"""


def test_pings_and_connected_sockets_count_for_who_sends(world: Playground, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    command = Laptop(world, tmp_path).command(BY_WHOM, "--journal", str(journal), command=[PYTHON, "-c", TRY])
    done = world.run(private(command))
    assert done.stdout.split() == [*["answered"] * 2, *["denied"] * 2, *["answered", "denied"] * 3], done.stderr
    said = [json.loads(line) for line in journal.read_text().splitlines()]
    judged = [each for each in said if each["subject"]["kind"] == "flow" and each["decision"] != "peek"]
    told = [(each["decision"], each["owner"]["exe"]) for each in judged]
    by_python, by_bash = [("allow", PYTHON_FILE), ("deny", PYTHON_FILE)], [("allow", PYTHON_FILE), ("deny", BASH)]
    assert told == [*by_python[:1] * 2, *by_python[1:] * 2, *by_bash * 3]


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
