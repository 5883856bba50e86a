"""The command line: what it refuses before anything else is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dnsfw import __version__
from dnsfw.cli import main

HEAVY = ["asyncio", "dnslib", "netfilterqueue", "bcc", "parsimonious", "resolver.server", "mitmproxy", "rich"]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="dnsfw")


def test_help_and_version() -> None:
    assert call("--version").output == f"dnsfw {__version__}\n"
    said = call("run", "--help")
    assert said.exit_code == 0
    for option in ("--policy", "--audit", "--upstream", "--journal", "--fail-on-deny", "--refused", "--quiet"):
        assert option in said.output
    for status in ("125", "126", "127"):
        assert status in said.output


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_s_help_tells_its_exit_statuses(command: str) -> None:
    assert "Exit status" in call(command, "--help").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "Missing argument 'COMMAND...'"),
        (["run", "--"], "Missing argument 'COMMAND...'"),
        (["run", "--nonsense", "--", "true"], "No such option"),
        (["run", "--policy"], "requires an argument"),
        (["run", "--policy", "/", "--", "true"], "is a directory"),
        (["run", "--upstream", "dns.example", "--", "true"], "'dns.example' is not an IP address"),
        (["run", "--upstream", "192.0.2.1:0", "--", "true"], "'0' is not a port"),
        (["run", "--upstream", "2001:db8::1:53x", "--", "true"], "is not an IP address"),
        (["selftest", "--junit", "/no/such/folder/junit.xml"], "No such file or directory"),
        (["run", "--config", "/no/such/config.toml", "--", "true"], "does not exist"),
        (["report", "--verify", "é"], "is no key"),
        (["nonsense"], "No such command"),
        (["up", "extra"], "unexpected extra argument"),
    ],
    ids=" ".join,
)
def test_a_mistake_in_the_call(arguments: list[str], said: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_help_loads_nothing_heavy() -> None:
    """The supervisor stays small, and a typing mistake is answered at once."""
    script = (
        "import sys; from dnsfw.cli import main; main(['run', '--help'], standalone_mode=False); print(*sys.modules)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & set(HEAVY)
