"""`dnsfw poison`: all scenarios hold for dnsfw, a gullible forwarder fails them, and the command says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from dnsfw.playground.control import PACKAGE_ROOT
from dnsfw.poison.crew import play_all
from dnsfw.poison.scenario import Scenario, shipped
from dnsfw.poison.verdict import Outcome, Result

pytestmark = pytest.mark.kernel("root", "netns")

SCENARIOS = shipped()
BUDGET = 30.0  # seconds for all of them
GULLIBLE = Path(__file__).parent / "gullible.py"
# What even one that believes everything passes: it relays, so what is asked and answered honestly is honest.
SOME_ATTACKS_THAT_IT_FALLS_FOR = {
    "wrong-id", "wrong-port", "wrong-question-name", "wrong-question-type", "case-swapped", "owner-off-chain",
    "owner-unrelated", "garbage-length", "unsolicited", "truncated-to-tcp", "rebind-loopback", "rebind-mapped",
    "rebind-https-hint4", "ech-stripped", "ttl-years", "ttl-negative", "question-two", "question-class-chaos",
    "tunnel-any", "tunnel-null", "cname-twice", "bomb-pointer-self", "random-ids-and-ports", "birthday-500",
    "edns-size", "large-answer-fragments",
}  # fmt: skip


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """All scenarios, played once against dnsfw."""
    began = time.monotonic()
    played = play_all(SCENARIOS, "dnsfw", lambda _: None)
    took = time.monotonic() - began
    assert took < BUDGET, f"{took:.1f} s"
    return {result.scenario: result for result in played}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
def test_dnsfw_holds(scenario: Scenario, results: dict[str, Result]) -> None:
    result = results[scenario.id]
    assert (result.outcome, result.misses) == (Outcome.HOLDS, ())


def test_each_line_of_the_catalogue_has_several_scenarios() -> None:
    numbers = [scenario.attack for scenario in SCENARIOS]
    assert {line for line in range(1, 22) if numbers.count(line) >= 3} == set(range(1, 22))
    assert len(SCENARIOS) >= 80


@pytest.fixture(scope="module")
def judged_gullible() -> dict[str, str]:
    """The outcomes for a forwarder that believes everything, by `dnsfw poison --target`."""
    with gullible("127.0.0.1", 5390, "127.0.0.1", 5391):
        options = [word for name in sorted(SOME_ATTACKS_THAT_IT_FALLS_FOR) for word in ("--only", name)]
        ran = poison("--target", "127.0.0.1:5390", "--serve-on", "127.0.0.1:5391", "--json", *options)
    assert ran.returncode == 1, ran.stderr
    (found,) = json.loads(ran.stdout)["targets"].values()
    return {result["scenario"]: result["outcome"] for result in found}


@pytest.mark.parametrize("name", sorted(SOME_ATTACKS_THAT_IT_FALLS_FOR))
def test_a_gullible_forwarder_does_not_hold(name: str, judged_gullible: dict[str, str]) -> None:
    assert judged_gullible[name] in {Outcome.FAILS, Outcome.LACKS}


def test_a_missing_peer_is_a_set_up_error_in_words() -> None:
    hide = 'for place in /usr/sbin /usr/local/sbin; do mount -t tmpfs none $place; done; PATH=/bin exec "$@"'
    ran = run(["unshare", "--mount", "sh", "-c", hide, "sh", *words("--spawn", "unbound")])
    assert (ran.returncode, "unbound is not installed" in ran.stderr) == (125, True), ran.stderr


def test_junit_names_each_scenario(tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    ran = poison("--only", "wrong-*", "--junit", str(file))
    assert ran.returncode == 0, ran.stderr
    suite = ET.parse(file).getroot().find("testsuite")
    assert suite is not None
    assert suite.get("failures") == "0"
    assert {case.get("name") for case in suite} == {each.id for each in SCENARIOS if each.id.startswith("wrong-")}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--only", "no-such"], 2, "No scenario is called no-such"),
        (["--target", "127.0.0.1"], 2, "not ADDR:PORT"),
        (["--target", "127.0.0.1:53", "--spawn", "unbound"], 2, "--target names one forwarder"),
        (["--target", "127.0.0.1:5389"], 125, "Nothing listens at 127.0.0.1:5389"),
        (["--only", "wrong-id", "--junit", "/proc/no"], 2, "can't be written"),
    ],
    ids=["pattern", "address", "two", "silence", "file"],
)
def test_mistakes_in_the_call(arguments: list[str], status: int, said: str) -> None:
    ran = poison(*arguments)
    assert (ran.returncode, said in ran.stderr) == (status, True), ran.stderr


def test_list_plays_nothing() -> None:
    ran = poison("--list", "--only", "5")
    assert ran.returncode == 0
    assert all(scenario.id in ran.stdout for scenario in SCENARIOS if scenario.attack == 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_it_is_killed(number: signal.Signals) -> None:
    """Workers, and a peer in the middle of a scenario that waits."""
    environment = os.environ | {"DNSFW_POISON_TEST": str(number)}
    mark = f"DNSFW_POISON_TEST={number}".encode()
    with subprocess.Popen(words("--only", "wrong-address-alone", "--only", "loop*"), env=environment, cwd=PACKAGE_ROOT,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:  # fmt: skip
        until(lambda: len(marked(mark)) >= 4)
        bench.send_signal(number)
    until(lambda: not marked(mark))


def poison(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run(words(*arguments))


def words(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dnsfw.cli", "poison", *arguments]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50, cwd=PACKAGE_ROOT)


@contextmanager
def gullible(*places: str | int) -> Iterator[None]:
    command = [sys.executable, str(GULLIBLE), *map(str, places)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        process.kill()


def marked(mark: bytes) -> set[int]:
    """Processes with `mark` in their environment."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (directory / "environ").read_bytes().split(b"\0"):
                found.add(int(directory.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def until(holds: Callable[[], bool], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
