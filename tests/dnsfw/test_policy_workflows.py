"""dnsfw check on a workflow: the policies in it, at their lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.dnsfw.commands import dnsfw

WORKFLOW = """\
on: push
jobs:
  build:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@v4
        with: {policy: "this is somebody else's.."}
      - uses: someone/dnsfw@v1
        with:
          policy: |
            github.com

            # more
            a..b
              *.co.uk:0
      - uses: ./
        with:
          policy: 'a.example:0'
      - uses: someone/dnsfw/sub@v1
        with: {policy: !}
      - uses: someone/dnsfw@v1
        with:
          policy: >
            a.example
            b.example
  same: {steps: &s [{uses: someone/dnsfw@v1, with: {policy: "c..d"}}]}
  again: {steps: *s}
"""


def places(said: str) -> list[str]:
    return [f"{one['line']}:{one['column']} {one['text'].strip()}" for one in json.loads(said)["findings"]]


def test_policies_in_a_workflow_are_checked_at_their_lines(tmp_path: Path) -> None:
    workflow = tmp_path / "ci.yml"
    workflow.write_text(WORKFLOW.replace("{policy: !}", "{policy: '!'}"))
    said = dnsfw("check", "--format", "json", workflow)
    assert said.status == 1
    assert places(said.out) == [
        "14:13 a..b",
        "15:22 *.co.uk:0",
        "18:29 a.example:0",
        "20:26 !",
        "23:29 a.example b.example",
        "26:62 c..d",
    ]


def test_an_expression_in_a_workflow_can_t_be_checked(tmp_path: Path) -> None:
    workflow = tmp_path / "ci.yml"
    for line in ("${{ vars.HOST }}", "a.${{ vars.HOST }}", "https://a.example/${{ github.ref }}/x"):
        workflow.write_text(f"jobs: {{a: {{steps: [{{uses: x/dnsfw@v1, with: {{policy: '{line}'}}}}]}}}}")
        said = dnsfw("check", workflow)
        assert said.status == 1
        assert "what GitHub will put here is not known" in said.out


def test_a_composite_action_is_read_too(tmp_path: Path) -> None:
    action = tmp_path / "action.yaml"
    action.write_text(
        "runs:\n  using: composite\n  steps:\n  - uses: x/dnsfw@v1\n    with:\n      policy: |\n        a..b\n"
    )
    assert places(dnsfw("check", "--format", "json", action).out) == ["7:9 a..b"]


def test_a_workflow_without_a_policy_says_that_nothing_was_checked(tmp_path: Path) -> None:
    workflow = tmp_path / "ci.yml"
    workflow.write_text("jobs: {a: {steps: [{run: make}]}}")
    said = dnsfw("check", workflow)
    assert said.status == 0
    assert "nothing was checked" in said.out
    assert dnsfw("check", "--strict", workflow).status == 1


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"a: [", "1:5"),
        (b"a: b\nc: d: e", "2:5"),
        (b"a: &x [*x, *y]", "1:12"),
        (b"\xff", "1:1"),
        (b"a: b\n\xff", "2:1"),
        (b"a: \x00", "1:1"),
        (b"[" * 5000, "1:1"),
        (b"#" * (1 << 20) + b"#", "1:1"),
    ],
    ids=["open", "mapping", "anchor", "bytes", "bytes below", "nul", "deep", "large"],
)
def test_a_file_that_is_no_workflow_is_an_error_with_its_place(tmp_path: Path, content: bytes, place: str) -> None:
    workflow = tmp_path / "ci.yml"
    workflow.write_bytes(content)
    said = dnsfw("check", "--format", "json", workflow)
    assert said.status == 1
    (one,) = json.loads(said.out)["findings"]
    assert f"{one['line']}:{one['column']}" == place


@pytest.mark.parametrize("content", [b"", b"[]", b"jobs: 3", b"jobs: {a: {steps: {b: c}}}", b"jobs: {a: [b]}", b"- 1"])
def test_any_shape_of_yaml_is_taken(tmp_path: Path, content: bytes) -> None:
    workflow = tmp_path / "ci.yml"
    workflow.write_bytes(content)
    assert "nothing was checked" in dnsfw("check", workflow).out
