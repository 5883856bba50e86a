"""`dnsfw selftest` against a host's own guard: a namespace that plays the host, sound and with a hole in it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsfw.playground.world import own_command

pytestmark = pytest.mark.kernel


@pytest.fixture
def host() -> Iterator[list[str]]:
    """What to put before a command that is to run on the host."""
    with subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up; echo; cat"], stdin=-1, stdout=-1) as cat:
        assert cat.stdout is not None
        cat.stdout.readline()
        yield ["nsenter", "-t", str(cat.pid), "-n"]
        cat.communicate()


def selftest(host: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [*host, *own_command("selftest", *options)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def on_host(host: list[str], *command: str) -> str:
    return subprocess.run([*host, *command], capture_output=True, text=True, check=True).stdout


def test_a_sound_guard_passes_and_one_with_a_hole_does_not(host: list[str], tmp_path: Path) -> None:
    before = on_host(host, "sh", "-c", "ip addr; ip route; ip -6 route")
    options = ["--upstream", "192.0.2.99", "--policy", "/dev/null", "--quiet"]
    with subprocess.Popen([*host, *own_command("up", *options)], stderr=subprocess.PIPE, text=True) as guard:
        assert guard.stderr is not None
        assert "guarding" in guard.stderr.readline()
        try:
            done = selftest(host, "--json", "--junit", str(tmp_path / "junit.xml"))
            found = json.loads(done.stdout)
            assert (done.returncode, found["good"], found["guard"]) == (0, True, "up"), done
            assert len(found["attempts"]) >= 40
            assert (tmp_path / "junit.xml").read_text().count("<testcase ") == len(found["attempts"])
            on_host(host, "nft", "insert rule inet dnsfw judge ip daddr 203.0.113.0/24 udp dport 4444 goto pass")
            done = selftest(host)
            assert done.returncode == 1, done
            assert "arrived !" in done.stdout
            assert on_host(host, "sh", "-c", "ip addr; ip route; ip -6 route") == before
        finally:
            guard.send_signal(signal.SIGINT)


def test_a_throw_away_run_is_tried_and_some_ways_alone(host: list[str]) -> None:
    """What is seen as stopped has got out without the guard."""
    done = selftest(host, "--run", "--json", "--only", "tcp4", "--only", "so-mark", "--only", "dns-tls")
    found = json.loads(done.stdout)
    assert (done.returncode, found["good"], found["guard"]) == (0, True, "run"), done
    assert {one["id"]: one["seen"] for one in found["attempts"]} == dict.fromkeys(
        ["tcp4", "so-mark", "dns-tls"], "stopped"
    )


def test_an_attempt_that_is_not_known_is_a_mistake_in_the_call(host: list[str]) -> None:
    done = selftest(host, "--run", "--only", "tcp5")
    assert done.returncode == 2, done
    assert "no attempt called tcp5" in done.stderr
    assert "tcp4" in done.stderr
