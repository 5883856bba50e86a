"""`dnsfw demo`: the attacks are real, the judge sees a guard that does not guard, and dnsfw guards."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.package.catalogue import WAYS
from dnsfw.playground.package.way import Way
from dnsfw.playground.rounds import POLICY, Package, Round
from dnsfw.playground.verdicts import Report, Verdict, report
from dnsfw.playground.world import Playground

NOBODY = 65534
# There is no such way without a guard: nothing was left open, and no other namespace may be entered.
ONLY_IN_A_GUARD = {"inherited", "other-namespace"}
BUDGET = 25.0  # seconds


@pytest.fixture(scope="module")
def package(loopback_world: Playground) -> Package:
    return Package(loopback_world, NOBODY)


@pytest.fixture(scope="module")
def unguarded(package: Package) -> Round:
    return package.unguarded()


@pytest.mark.kernel("root", "netns")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.id)
def test_every_attack_is_real(unguarded: Round, way: Way) -> None:
    attempt = unguarded.attempts[way.id]
    assert bool(attempt.arrived) is (way.id not in ONLY_IN_A_GUARD), attempt


@pytest.mark.kernel("root", "netns")
def test_a_guard_that_guards_nothing_is_seen(package: Package, unguarded: Round) -> None:
    found = report(unguarded, package.round(package.as_user()))
    assert not found.good
    assert found.count(Verdict.OPEN) > found.count(Verdict.CLOSED)
    assert {line.verdict for line in found.build} == {Verdict.WORKS}


@pytest.mark.kernel("root", "netns")
def test_a_guard_that_lets_nothing_through_is_seen(package: Package, unguarded: Round) -> None:
    found = report(unguarded, package.round(["unshare", "--net", *package.as_user()]))
    assert not found.good
    assert found.count(Verdict.OPEN) == 0
    assert {line.verdict for line in found.build} == {Verdict.BROKEN}


@pytest.fixture(scope="module")
def demo(loopback_world: Playground) -> tuple[dict[str, Any], int, float]:
    """What `dnsfw demo --json` says, its exit status, and how many seconds it took."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    started = time.monotonic()
    command = loopback_world.dnsfw("demo", "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode, time.monotonic() - started


@pytest.mark.kernel
def test_the_demo_finds_nothing_unexpected(demo: tuple[dict[str, Any], int, float]) -> None:
    found, status, _ = demo
    unexpected = [one for one in (*found["ways"], *found["build"]) if one["verdict"] in {"open", "broken"}]
    assert (unexpected, found["good"], status) == ([], True, 0)


@pytest.mark.kernel
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.id)
def test_dnsfw_closes_every_way_but_the_known(demo: tuple[dict[str, Any], int, float], way: Way) -> None:
    """A way that is said to be open and no longer is must lose its excuse."""
    (one,) = [one for one in demo[0]["ways"] if one["id"] == way.id]
    closed = "no-way" if way.id in ONLY_IN_A_GUARD else "closed"
    assert one["verdict"] == ("known-open" if way.open_because else closed), one


@pytest.mark.kernel
def test_the_guarded_program_inherits_no_socket(demo: tuple[dict[str, Any], int, float]) -> None:
    (one,) = [one for one in demo[0]["ways"] if one["id"] == "inherited"]
    assert one["guarded"]["ended"] == "EBADF"


# Under `up` helpers and proxies are guarded as well. A multicast group's name is told to the laptop's own link.
OPEN_UNDER_UP = {way.id for way in WAYS if way.open_because} - {"helper-path"} | {"group-spells"}


@pytest.fixture(scope="module")
def under_up(loopback_world: Playground, package: Package, unguarded: Round) -> Report:
    """The same attacks on a laptop that is guarded as a whole."""
    options = ["--upstream", atlas.UPSTREAM.v4, "--policy", str(POLICY)]
    with loopback_world.popen(loopback_world.dnsfw("up", *options), stderr=subprocess.PIPE, text=True) as guard:
        assert guard.stderr is not None
        *_, script, guarding = (guard.stderr.readline() for _ in range(3))
        assert "guarding" in guarding
        trusting = ["sh", "-c", f'. {script.split(": . ")[1].strip()}; exec "$@"', "sh"]
        # The one capability that may be lying around on a host: raw and packet sockets, and marks of one's own.
        found = report(unguarded, package.round([*trusting, *package.as_user("+net_raw")]))
        guard.send_signal(signal.SIGINT)
        guard.stderr.read()
    return found


@pytest.mark.kernel
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.id)
def test_up_closes_every_way_but_the_known(under_up: Report, way: Way) -> None:
    (line,) = [line for line in under_up.ways if line.way is way]
    assert bool(line.guarded.arrived) is (way.id in OPEN_UNDER_UP), line


@pytest.mark.kernel
def test_up_lets_the_honest_build_work(under_up: Report) -> None:
    assert {line.verdict for line in under_up.build} == {Verdict.WORKS}


@pytest.mark.kernel
def test_ctrl_c_at_the_terminal_ends_the_demo_and_leaves_nothing(loopback_world: Playground) -> None:
    before = playgrounds()
    ours, theirs = pty.openpty()
    session = ["setsid", "--ctty", "--wait", *loopback_world.dnsfw("demo")]
    with (
        os.fdopen(ours, "r+b", buffering=0) as terminal,
        subprocess.Popen(session, stdin=theirs, stdout=theirs, stderr=theirs) as demo,
    ):
        os.close(theirs)
        shown = b""
        while b"unguarded" not in shown:  # the progress line of the first round
            shown += terminal.read(4096)
        assert playgrounds() != before
        terminal.write(b"\x03")
        assert demo.wait(10) != 0
    assert playgrounds() == before


def playgrounds() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("dnsfw-playground-*"))


@pytest.mark.kernel
def test_the_demo_is_quick(demo: tuple[dict[str, Any], int, float]) -> None:
    assert demo[2] < BUDGET
