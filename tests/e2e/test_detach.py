"""`dnsfw up --detach` and `dnsfw down`: a guard without a terminal, and the host as it was."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground

pytestmark = pytest.mark.kernel

# All of the host's that a guard might leave behind. Commands that others guard meanwhile have their own names.
LOOK = """
nft list ruleset; iptables-nft-save | grep -v '^#'; ip6tables-nft-save | grep -v '^#'
cat /etc/resolv.conf; getent passwd; getent group
sysctl -a 2>/dev/null | grep -E '^(net.ipv[46].(conf|ip_forward)|kernel|user)' | grep -vE 'random|pty.nr|pid|file'
find /sys/fs/cgroup -type d | grep -v dnsfw-; ls -d /run/dnsfw/up-$(stat -Lc %i /proc/self/ns/net) 2>/dev/null
"""


def look(host: Playground) -> str:
    return host.run(["sh", "-c", LOOK]).stdout


def up(host: Playground, policy: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """It returns although all that it prints is waited for: the guard holds none of its caller's pipes."""
    policy.write_text(f"{atlas.ALLOWED_NAME}\n")
    return host.run(host.dnsfw("up", "--detach", "--policy", str(policy), *options), timeout=20)


def down(host: Playground, *options: str) -> subprocess.CompletedProcess[str]:
    return host.run(host.dnsfw("down", *options))


def resolves(host: Playground, name: str) -> bool:
    return host.run(["getent", "ahosts", name]).returncode == 0


def test_it_returns_when_the_host_is_guarded_and_down_leaves_it_as_it_was(host: Playground, tmp_path: Path) -> None:
    before = look(host)
    started = up(host, tmp_path / "policy")
    assert started.returncode == 0, started.stderr
    assert "dnsfw down" in started.stderr
    assert not resolves(host, atlas.EVIL_ZONE)
    assert resolves(host, atlas.ALLOWED_NAME)
    ended = down(host, "--report", "--fail-on-deny")
    assert f"resolve {atlas.EVIL_ZONE}" in ended.stderr
    assert f"to allow it: {atlas.EVIL_ZONE}" in ended.stderr
    assert ended.returncode == 3
    assert look(host) == before
    assert resolves(host, atlas.EVIL_ZONE)


def test_a_guard_that_can_not_start_is_an_error_here_and_leaves_nothing(host: Playground, tmp_path: Path) -> None:
    before = look(host)
    refused = up(host, tmp_path / "policy", "--upstream", "192.0.2.53", "--journal", str(tmp_path / "no" / "journal"))
    assert refused.returncode == 2
    assert "can't be written" in refused.stderr
    assert look(host) == before


def test_there_is_one_guard(host: Playground, tmp_path: Path) -> None:
    assert up(host, tmp_path / "policy").returncode == 0
    second = up(host, tmp_path / "policy")
    assert second.returncode == 125
    assert "guards this host already" in second.stderr
    assert "dnsfw down" in second.stderr
    assert not resolves(host, atlas.EVIL_ZONE)


def test_down_ends_one_in_the_foreground_too(host: Playground) -> None:
    with host.popen(host.dnsfw("up"), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "guarding this host" in process.stderr.readline()
        assert down(host).returncode == 0
        assert process.wait(5) == 0
    assert resolves(host, atlas.EVIL_ZONE)


def test_a_terminal_that_is_closed_ends_one_in_the_foreground(host: Playground) -> None:
    """The kernel's own SIGHUP; a process's means the policy (test_reload.py)."""
    before = look(host)
    ours, theirs = pty.openpty()
    session = ["setsid", "--ctty", "--wait", *host.dnsfw("up")]
    with host.popen(session, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while b"Ctrl-C ends it" not in said:
            said += os.read(ours, 1000)
        assert not resolves(host, atlas.EVIL_ZONE)
        os.close(ours)
        assert process.wait(10) == 0
    assert look(host) == before


def test_down_is_harmless_where_nothing_is_up(host: Playground) -> None:
    before = look(host)
    for _ in range(2):
        done = down(host, "--report")
        assert done.returncode == 0
        assert "no guard was up" in done.stderr
    assert look(host) == before
