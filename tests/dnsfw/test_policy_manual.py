"""docs/policy.md: every example in it, executed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from dnsfw.policies.registries import _TOOLS
from policy.parse import DEPTH_LIMIT, LINE_LIMIT, TEXT_LIMIT
from tests.dnsfw.commands import dnsfw

MANUAL = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
_FENCE = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
_ROW = re.compile(r"^\| `((?:https?|tcp|udp|icmp|dns):[^`]+)` \| (allowed|denied) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A fenced block: its language, the words after it, its text; and what stands between it and the next."""

    language: str
    words: str
    text: str
    after: str

    def options(self) -> list[str]:
        return ["--repo", self.words.removeprefix("repo=")] if self.words.startswith("repo=") else []


def examples() -> Iterator[Example]:
    fences = list(_FENCE.finditer(MANUAL))
    ends = [fence.start() for fence in fences[1:]] + [len(MANUAL)]
    for fence, end in zip(fences, ends, strict=True):
        yield Example(fence[1], fence[2], fence[3], MANUAL[fence.end() : end])


EXAMPLES = list(examples())
POLICIES = [one for one in EXAMPLES if one.language == "policy" and one.words != "error"]
MISTAKES = [one for one in EXAMPLES if one.language == "policy" and one.words == "error"]
ROWS = [(one, row[1], row[2]) for one in POLICIES for row in _ROW.finditer(one.after)]
COMMANDS = [(one, result) for one, result in pairwise(EXAMPLES) if result.language == "output"]


def first(one: Example) -> str:
    return one.text.partition("\n")[0]


@pytest.mark.parametrize("example", POLICIES, ids=first)
def test_a_policy_is_valid(tmp_path: Path, example: Example) -> None:
    (tmp_path / "policy").write_text(example.text)
    said = dnsfw("check", *example.options(), tmp_path / "policy")
    assert said.status == 0, said.out


@pytest.mark.parametrize(
    ("example", "asked", "answer"), ROWS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_row_of_a_table(tmp_path: Path, example: Example, asked: str, answer: str) -> None:
    (tmp_path / "policy").write_text(example.text)
    said = dnsfw("explain", *example.options(), tmp_path / "policy", *shlex.split(asked.replace("*", "'*'")))
    assert said.out.partition(":")[0] == answer, said


@pytest.mark.parametrize("example", MISTAKES, ids=first)
def test_each_line_with_a_reason_is_refused_for_it(tmp_path: Path, example: Example) -> None:
    """The comment begins the message; a line without one is fine."""
    (tmp_path / "policy").write_text(example.text)
    said = dnsfw("check", tmp_path / "policy").out
    errors = dict(re.findall(r"^\S+:(\d+):\d+: error: (.*)$", said, re.MULTILINE))
    reasons = {
        str(number): line.partition(" # ")[2]
        for number, line in enumerate(example.text.splitlines(), start=1)
        if " # " in line
    }
    assert errors.keys() == reasons.keys()
    assert all(errors[line].startswith(reason) for line, reason in reasons.items()), errors


@pytest.mark.parametrize(("example", "expected"), COMMANDS, ids=first)
def test_a_command_prints_what_the_page_shows(
    tmp_path: Path, example: Example, expected: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy").write_text(example.text)
    argv = {
        "check": ["check", "policy"],
        "explain": ["explain", "policy", *example.words.split()],
        "fmt": ["fmt", "policy"],
    }[example.language]
    said = dnsfw(*argv)
    shown = Path("policy").read_text() if example.language == "fmt" else said.out
    assert (str(said.status), shown) == (expected.words, expected.text)


def test_the_page_has_what_it_promises() -> None:
    assert len(POLICIES) >= 12
    assert len(ROWS) >= 90
    assert MISTAKES
    assert len(COMMANDS) == 4
    assert {one.language for one in EXAMPLES} <= {"policy", "check", "explain", "fmt", "output"}
    assert all(
        row in {row for _, row, _ in ROWS} or row == "asked"
        for row in re.findall(r"^\| `(\w+:[^`]*)` \|", MANUAL, re.MULTILINE)
    )


def test_every_command_option_attribute_and_limit_is_on_the_page() -> None:
    words = [
        "--strict",
        "--format",
        "--dump",
        "--names",
        "--address",
        "--method",
        "--json",
        "--check",
        "--diff",
        "--repo",
    ]
    words += ["exe=", "arg=", "arg[N]=", "user=", "cgroup=", "image=", "step=", "action="]
    words += ["private", "within=", "no-sni", "passthrough", "insecure", *_TOOLS]
    words += [f"{TEXT_LIMIT:,}", f"{LINE_LIMIT:,}", f"{DEPTH_LIMIT} deep"]
    assert [word for word in words if word not in MANUAL] == []


def test_the_session_that_needs_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The indented session, with a tool that names the page's mirror."""
    session = re.search(r"    \$ echo '(.*)' \| dnsfw check -\n((?:    .*\n)+)", MANUAL)
    assert session is not None
    npm = tmp_path / "npm"
    npm.write_text('#!/bin/sh\necho \'{"registry": "https://mirror.example/"}\'\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    expected = "".join(line.removeprefix("    ") for line in session[2].splitlines(keepends=True))
    assert dnsfw("check", "-", stdin=session[1]).out == expected
