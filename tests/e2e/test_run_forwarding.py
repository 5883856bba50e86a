"""The uplink on a host whose own forward filter drops what it doesn't know, as container engines leave it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest

from dnsfw.host.forwarding import restrictive
from dnsfw.playground import atlas
from dnsfw.playground.world import Playground, Setting

_ENGINE_LIKE = """
for tables in iptables-nft ip6tables-nft; do
    $tables -P FORWARD DROP
    $tables -N ENGINE-USER
    $tables -A FORWARD -j ENGINE-USER
done
"""


@pytest.fixture
def laptop() -> Iterator[Playground]:
    with Playground(Setting()) as world:
        assert world.run(["sh", "-ec", _ENGINE_LIKE]).returncode == 0
        yield world


def ruleset(laptop: Playground) -> str:
    return laptop.run(["nft", "list", "ruleset"]).stdout


@pytest.mark.kernel
@pytest.mark.parametrize("version", ["4", "6"])
def test_an_allowed_site_is_reached_and_the_filter_is_as_it_was(laptop: Playground, version: str) -> None:
    before = ruleset(laptop)
    url = f"https://{atlas.ALLOWED_NAME}/"
    fetch = ["curl", f"-{version}sS", "--max-time", "5", "--cacert", str(laptop.authority), url]
    policy = laptop.directory / "one.policy"
    policy.write_text(atlas.ALLOWED_NAME)
    done = laptop.run(laptop.dnsfw("run", "--policy", str(policy), "--", *fetch))
    assert "hello" in done.stdout, done.stderr
    assert ruleset(laptop) == before


@pytest.mark.kernel
def test_what_a_killed_run_told_the_filter_is_taken_back_by_the_next(laptop: Playground) -> None:
    before = ruleset(laptop)
    run = laptop.popen(
        laptop.dnsfw("run", "--", "sh", "-c", "echo started; cat"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == "started\n"
        during = ruleset(laptop)
        run.send_signal(signal.SIGKILL)
    assert "dnsfw" in during
    assert laptop.run(laptop.dnsfw("run", "-q", "--", "true")).returncode == 0
    assert ruleset(laptop) == before


@pytest.mark.parametrize(
    ("chain", "could_drop"),
    [
        ("", False),
        ("chain FORWARD {\n type filter hook forward priority filter; policy accept;\n}", False),
        ("chain FORWARD {\n type filter hook forward priority filter; policy drop;\n}", True),
        ("chain FORWARD {\n policy accept;\n counter packets 0 bytes 0 jump ufw-before-forward\n}", True),
        ("chain FORWARD {\n policy accept;\n iifname eth1 counter packets 0 bytes 0 drop\n}", True),
    ],
    ids=["no chain", "empty", "policy", "jump", "rule"],
)
def test_which_chains_could_drop_what_we_forward(chain: str, could_drop: bool) -> None:
    assert restrictive(chain) is could_drop
