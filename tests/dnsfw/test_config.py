"""The configuration: what wins, where it says it came from, and how a mistake is told."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsfw.config import NOTHING, Given, effective, parse_config, read_config, show
from dnsfw.errors import UsageError
from dnsfw.machine.custody import replaceable
from tests.dnsfw.commands import dnsfw

FILE = """\
# of this machine
policy = "/etc/dnsfw/dnsfw.policy"
upstreams = [
  "192.0.2.1",   # the first
  "tls://192.0.2.2#dns.example",
]
journal.file = "/var/log/dnsfw/journal.jsonl"

[budget]
names_a_minute = 7

[lockdown]
ptrace = true
"""


def test_what_the_file_says_holds_and_has_its_line() -> None:
    said = effective(parse_config(FILE, "c.toml"))
    settings = said.settings
    assert settings.policy == "/etc/dnsfw/dnsfw.policy"
    assert settings.upstreams == ("192.0.2.1", "tls://192.0.2.2#dns.example")
    assert (settings.budget.names_a_minute, settings.budget.names_a_job) == (7, 1000)
    assert settings.lockdown.ptrace
    told = {key: place for key, place in said.origins.items() if place != "default"}
    assert told == {
        "policy": "c.toml:2",
        "upstreams": "c.toml:3",
        "journal.file": "c.toml:7",
        "budget.names_a_minute": "c.toml:10",
        "lockdown.ptrace": "c.toml:13",
    }


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults() -> None:
    called = Given({"policy": "mine", "audit": True}, {"policy": "--policy", "audit": "--audit"})
    said = effective(parse_config(FILE, "c.toml"), called)
    assert (said.settings.policy, said.origins["policy"]) == ("mine", "--policy")
    assert (said.settings.audit, said.origins["audit"]) == (True, "--audit")
    assert said.origins["lockdown.ptrace"] == "c.toml:13"
    assert effective(NOTHING).settings.journal.mebibytes == 64


def test_a_command_gets_none_of_the_hosts_policy_or_mode() -> None:
    text = 'audit = true\n[journal]\nmebibytes = 3\nfile = "/x"\n[metrics]\nport = 9\n'
    settings = effective(parse_config(text + FILE[FILE.index("[budget]") :], "c").of_the_machine()).settings
    assert (settings.audit, settings.policy, settings.journal.file, settings.metrics.port) == (False, "", "", 0)
    assert (settings.journal.mebibytes, settings.budget.names_a_minute, settings.lockdown.ptrace) == (3, 7, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("audit = 1\n", "c:1: audit: expected `bool`, got `int`"),
        ("\n\nporicy = 'x'\n", "c:3: poricy: there is no such key"),
        ("[journal]\nfile = '/x'\nsize = 3\n", "c:3: journal.size: there is no such key"),
        ("[jornal]\nfile = '/x'\n", "c:2: jornal: there is no such key"),
        ("[journal]\nmebibytes = 0\n", "c:2: journal.mebibytes: expected `int` >= 1"),
        ("[metrics]\nport = 65536\n", "c:2: metrics.port: expected `int` <= 65535"),
        ("refused = true\nupstreams = [\n '192.0.2.1',\n 3]\n", "c:2: upstreams: expected `str`, got `int`"),
        ("upstreams = ['dns.example']\n", "c:1: upstreams: upstream 'dns.example': 'dns.example' is not an IP"),
        ("policy = 'dnsfw.policy'\n", "c:1: policy: a path has to begin with /"),
        ("journal = 3\n", "c:1: journal: expected `object`, got `int`"),
        ("a = \n", r"c is not TOML: Invalid value \(at line 1, column 5\)"),
        ("a = 1\na = 2\n", "c is not TOML"),
        ("#" * 70_000, "longer than 64 KiB"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_line(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("`", ".")):
        parse_config(text, "c")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "audit": st.booleans(),
            "repo": st.text(max_size=20),
            "upstreams": st.lists(st.ip_addresses().map(str), max_size=3),
            "budget.names_a_job": st.integers(1, 10**9),
            "lockdown.sudo": st.text(max_size=20),
        },
    )
)
def test_what_is_shown_is_a_configuration_that_says_the_same(values: dict[str, object]) -> None:
    shown = show(effective(Given(values, dict.fromkeys(values, "--x"))))
    again = effective(parse_config(shown, "again"))
    assert again.settings == effective(Given(values, dict.fromkeys(values, ""))).settings
    assert tomllib.loads(shown)
    for key in values:
        assert again.origins[key] == f"again:{_line(shown, key)}"


def _line(shown: str, key: str) -> int:
    name = key.rpartition(".")[2]
    return next(number for number, line in enumerate(shown.splitlines(), 1) if line.startswith(f"{name} ="))


def test_the_command_shows_origins(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[journal]\nfiles = 2\n")
    said = dnsfw("config", "--config", file, "--audit", "--upstream", "192.0.2.9")
    assert said.status in (0, 2)
    if os.geteuid() != 0:
        return
    assert f"files = 2                                # {file}:2" in said.out
    assert "audit = true                             # --audit" in said.out
    assert 'upstreams = ["192.0.2.9"]                # --upstream' in said.out
    told = json.loads(dnsfw("config", "--config", file, "--json").out)
    assert told["settings"]["journal"]["files"] == 2
    assert told["origins"]["journal.files"] == f"{file}:2"


def test_no_file_is_no_mistake_and_a_folder_is_one(tmp_path: Path) -> None:
    assert read_config(tmp_path / "none.toml") is NOTHING
    with pytest.raises(UsageError, match="can't be read"):
        read_config(tmp_path)


def of_a_group(file: Path) -> None:
    file.chmod(0o664)
    os.chown(file, 0, 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="files of two users take root")
@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (lambda _: None, ""),
        (lambda file: os.chown(file, 5, 0), "can be changed by"),
        (lambda file: file.chmod(0o666), "can be changed by everybody"),
        (of_a_group, "can be changed by group 5"),
        (lambda file: os.chown(file.parent, 5, 0), "can be changed by"),
        (lambda file: file.parent.chmod(0o777), "can be changed by everybody"),
        (lambda file: file.parent.chmod(0o1777), ""),
        (lambda file: file.unlink() or file.symlink_to("nowhere"), "can't be looked at"),
        (lambda file: file.unlink(), "can't be looked at"),
    ],
    ids=["root's", "another's", "world", "group", "folder", "open folder", "sticky folder", "broken", "none"],
)
def test_who_else_could_replace_a_file(tmp_path: Path, arrange: object, said: str) -> None:
    """S4."""
    folder = tmp_path / "of-root"
    folder.mkdir(mode=0o755)
    file = folder / "file"
    file.write_text("audit = false\n")
    assert callable(arrange)
    arrange(file)
    assert said in replaceable(file)
    assert bool(said) == bool(replaceable(file))
    if said and file.exists():
        with pytest.raises(UsageError, match="not root's alone"):
            read_config(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="files of two users take root")
def test_a_link_to_another_users_file_is_seen_through(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    theirs.write_text("")
    os.chown(theirs, 5, 0)
    mine.symlink_to(theirs)
    assert str(theirs) in replaceable(mine)
