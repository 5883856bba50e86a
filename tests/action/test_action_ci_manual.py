"""docs/ci.md: what it has a GitLab job or a shell do guards that job; its workflows name inputs that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground, Setting
from tests.action.standin import ROOT, Job, job

MANUAL = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/guarded.yml").read_text(encoding="utf-8"))
MAKEFILE = f"""
build:
	curl -sS --fail --max-time 5 -o /dev/null https://{atlas.ALLOWED_NAME}/
	! curl -sS --max-time 5 https://{atlas.EVIL_SHARED_NAME}/
	echo built > built
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", MANUAL, re.MULTILINE | re.DOTALL)


def gitlab(text: str) -> str:
    """As GitLab runs them: script by script, the last one whatever became of those before."""
    made = yaml.safe_load(text)["build"]
    lines = {part: "\n".join(made[part]) for part in ("before_script", "script", "after_script")}
    return f"set -e\ntrap {lines['after_script']!r} EXIT\n{lines['before_script']}\n{lines['script']}\n"


SCRIPTS = [*blocks("sh"), *(gitlab(text) for text in blocks("yaml") if "before_script" in text)]


@pytest.fixture
def runner() -> Iterator[Job]:
    with Playground(Setting()) as laptop, job(laptop) as made:
        made.install("/opt/dnsfw/bin/dnsfw")
        yield made


@pytest.mark.kernel
@pytest.mark.parametrize("script", SCRIPTS, ids=["shell", "token", "GitLab"])
def test_a_job_that_does_what_it_says_is_guarded(runner: Job, script: str) -> None:
    (runner.workspace / "ci.policy").write_text(f"{atlas.ALLOWED_NAME}\n")
    (runner.workspace / "Makefile").write_text(MAKEFILE)
    done = runner.run(script)
    assert done.status == 0, done.log
    assert (runner.workspace / "built").exists()
    assert f"✗ resolve {atlas.EVIL_SHARED_NAME}" in done.log
    assert runner.run(f"curl -sS --max-time 5 https://{atlas.EVIL_SHARED_NAME}/").status == 0  # and open again


def test_every_input_is_in_the_manual_and_no_other() -> None:
    table = re.findall(r"^\| `([\w-]+)` \|", MANUAL, re.MULTILINE)
    assert table == list(ACTION["inputs"])


def test_uses_of_the_action_name_inputs_that_it_has() -> None:
    jobs = [*(yaml.safe_load(text).get("jobs", {}) for text in blocks("yaml") if "jobs:" in text), WORKFLOW["jobs"]]
    steps = [step for named in jobs for each in named.values() for step in each["steps"]]
    ours = [step for step in steps if re.match(r"(OWNER/dnsfw@|\./$)", step.get("uses", ""))]
    assert len(ours) == 2
    assert {name for step in ours for name in step.get("with", {})} <= set(ACTION["inputs"])


def test_the_entry_points_are_there() -> None:
    for folder in (".", "action/sudo-on", "action/sudo-off"):
        runs = yaml.safe_load((ROOT / folder / "action.yml").read_text(encoding="utf-8"))["runs"]
        assert runs["using"] == "node24"
        assert all((ROOT / folder / runs[phase]).is_file() for phase in ("pre", "main", "post") if phase in runs)
