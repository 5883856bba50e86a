"""What ships as @include: each preset valid, commented, without a remark, and as wide as it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dnsfw.machine.privilege import calling_user
from dnsfw.policies.reading import PRESETS, Library, Surroundings, parse_policy, preset_names
from policy import Action, Policy, PolicyInvalid, Rule
from tests.dnsfw.commands import dnsfw

WORKER = "/home/runner/actions-runner/bin/Runner.Worker"
NODE = "/home/runner/actions-runner/externals/node24/bin/node"
HERE = Surroundings({}, calling_user(os.environ))


def policy(text: str, folder: Path = Path()) -> Policy:
    return parse_policy(text, str(folder / "p"), Library(folder, HERE), HERE)


def test_the_presets_are_these() -> None:
    assert preset_names() == ["docker-hub", "ghcr", "github-runner", "os-basics"]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_valid_in_canonical_form_and_no_warning_is_due(name: str) -> None:
    path = PRESETS / f"{name}.policy"
    assert dnsfw("check", "--strict", path).status == 0
    assert dnsfw("fmt", "--diff", path) == (0, "", "")


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_what_each_paragraph_is_for(name: str) -> None:
    paragraphs = (PRESETS / f"{name}.policy").read_text(encoding="utf-8").split("\n\n")
    assert all(paragraph.startswith("#") for paragraph in paragraphs)
    assert any(line.startswith("# Source:") for line in paragraphs[0].split("\n")) or "RFC" in "".join(paragraphs)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_only_allows_and_only_in_the_plainest_words(name: str) -> None:
    rules = policy(f"@include {name}").rules
    assert rules
    assert all(rule.action is Action.ALLOW and not rule.flags and rule.url is None for rule in rules)
    assert {rule.source.file for rule in rules} == {f"@{name}"}


def test_presets_stand_beside_each_other() -> None:
    whole = policy("\n".join(f"@include {name}" for name in preset_names())).rules
    parts: list[Rule] = [rule for name in preset_names() for rule in policy(f"@include {name}").rules]
    assert list(whole) == parts


@pytest.mark.parametrize(
    ("preset", "question", "allowed"),
    [
        ("github-runner", "https://github.com/o/r", True),
        ("github-runner", f"https://pipelines.actions.githubusercontent.com/x --exe {WORKER}", True),
        ("github-runner", f"https://pipelines.actions.githubusercontent.com/x --exe {NODE}", True),
        ("github-runner", "https://pipelines.actions.githubusercontent.com/x --exe /usr/bin/node", False),
        ("github-runner", f"https://productionresultssa7.blob.core.windows.net/x --exe {WORKER}", True),
        ("github-runner", f"https://productionresultssa7.blob.core.windows.net/x --exe {NODE}", True),
        ("github-runner", "https://productionresultssa7.blob.core.windows.net/x --exe /usr/bin/curl", False),
        ("github-runner", "https://productionresultssa7.blob.core.windows.net/x", False),
        ("github-runner", "https://productionresultssa20.blob.core.windows.net/x", False),
        ("github-runner", "https://productionresultssa7x.blob.core.windows.net/x", False),
        ("github-runner", "https://evil.blob.core.windows.net/x", False),
        ("github-runner", "https://evil.s3.amazonaws.com/x", False),
        ("github-runner", "tcp://github.com:22", False),
        ("github-runner", "tcp://168.63.129.16:80 --user 0", True),
        ("github-runner", "tcp://168.63.129.16:80 --user 1000", False),
        ("github-runner", "tcp://169.254.169.254:80 --user 0", False),
        ("ghcr", "https://ghcr.io/v2/", True),
        ("ghcr", "https://pkg-containers.githubusercontent.com/x", True),
        ("ghcr", "https://raw.githubusercontent.com/x", False),
        ("docker-hub", "https://registry-1.docker.io/v2/", True),
        ("docker-hub", "https://hub.docker.com/", False),
        ("docker-hub", "https://evil.r2.cloudflarestorage.com/x", False),
        ("os-basics", "udp://255.255.255.255:67", True),
        ("os-basics", "udp://192.168.1.1:67", True),
        ("os-basics", "udp://192.168.1.1:68", False),
        ("os-basics", "udp://203.0.113.1:67", False),
        ("os-basics", "udp://[ff02::1:2]:547", True),
        ("os-basics", "udp://0.debian.pool.ntp.org:123", True),
        ("os-basics", "tcp://0.debian.pool.ntp.org:443", False),
        ("os-basics", "tcp://169.254.169.254:80", False),
    ],
)
def test_what_a_preset_opens(tmp_path: Path, preset: str, question: str, allowed: bool) -> None:
    (tmp_path / "p").write_text(f"@include {preset}")
    assert dnsfw("explain", tmp_path / "p", *question.split()).status == (0 if allowed else 1)


def test_no_file_stands_in_for_a_preset(tmp_path: Path) -> None:
    (tmp_path / "ghcr").write_text("evil.example")
    assert {rule.source.file for rule in policy("@include ghcr", tmp_path).rules} == {"@ghcr"}


def test_a_file_beside_the_policy_and_what_it_includes(tmp_path: Path) -> None:
    (tmp_path / "base.policy").write_text("a.example\n@include more")
    (tmp_path / "more").write_text("@include ghcr\nb.example")
    files = [rule.source.file for rule in policy("@include base.policy", tmp_path).rules]
    assert files == [str(tmp_path / "base.policy"), "@ghcr", "@ghcr", str(tmp_path / "more")]


@pytest.mark.parametrize(
    ("files", "line", "reason"),
    [
        ({}, "@include nothing", "no file nothing in"),
        ({}, "@include nothing", "no preset (docker-hub, ghcr, github-runner, os-basics)"),
        ({}, "@include ../p", "not a directive"),
        ({"folder/x": ""}, "@include folder", "no file folder in"),
        ({"a": "@include b", "b": "@include a"}, "@include a", "includes itself"),
        ({"a": b"\xff"}, "@include a", "not UTF-8"),
        ({"a": b"a.example\n" * 500_000}, "@include a", "at most"),
    ],
    ids=["missing", "presets are named", "folders", "a folder", "loop", "bytes", "large"],
)
def test_includes_that_fail(tmp_path: Path, files: dict[str, str | bytes], line: str, reason: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PolicyInvalid) as caught:
        policy(line, tmp_path)
    assert reason in str(caught.value)


def test_a_loop_back_to_the_policy_itself(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("@include p")
    said = dnsfw("check", tmp_path / "p")
    assert said.status == 1
    assert "includes itself" in said.out


def test_a_policy_is_read_once(tmp_path: Path) -> None:
    """What it included stays what it was when it was loaded, whatever becomes of the file."""
    (tmp_path / "base").write_text("a.example")
    library = Library(tmp_path, HERE)
    first = parse_policy("@include base", "p", library, HERE)
    (tmp_path / "base").write_text("evil.example")
    assert parse_policy("@include base", "p", library, HERE) == first
