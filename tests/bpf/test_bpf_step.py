"""Which step of a job: what is believed of a runner's environment, and what an earlier step could have written."""

from __future__ import annotations

import pytest

from bpf.step import UNKNOWN_STEP, Step, read_step

WORK = "/home/runner/work"
SCRIPT = ("/usr/bin/bash", "-e", f"{WORK}/_temp/0c5f.sh")
NODE = "/home/runner/externals/node20/bin/node"
CHECKOUT = (NODE, f"{WORK}/_actions/actions/checkout/v4/dist/index.js")
RUNNER = {"GITHUB_ACTION": "build", "GITHUB_WORKSPACE": f"{WORK}/app/app", "PATH": "/usr/bin", "EMPTY": ""}
ACTION = {**RUNNER, "GITHUB_ACTION": "__actions_checkout", "GITHUB_ACTION_REPOSITORY": "actions/checkout"}

BELIEVED = {
    "a script": (SCRIPT, RUNNER, Step("build", None)),
    "an action": (CHECKOUT, ACTION, Step("__actions_checkout", "actions/checkout")),
    "an action below a folder of its repository": (
        (NODE, f"{WORK}/_actions/actions/cache/v4/save/dist/index.js"),
        {**RUNNER, "GITHUB_ACTION_REPOSITORY": "actions/cache"},
        Step("build", "actions/cache"),
    ),
    "an action behind a wrapper": (("/opt/wrap", *CHECKOUT), ACTION, Step("__actions_checkout", "actions/checkout")),
}
# GITHUB_ENV lets a step set any variable for later ones; the runner sets GITHUB_ACTION_REPOSITORY over it for actions
# from a repository, and for nothing else.
PLANTED = {
    "in a script": (SCRIPT, {**RUNNER, "GITHUB_ACTION_REPOSITORY": "actions/checkout"}, "build"),
    "in an action of the job's own repository": (
        (NODE, f"{WORK}/app/app/.github/actions/x/index.js"),
        {**RUNNER, "GITHUB_ACTION_REPOSITORY": "actions/checkout"},
        "build",
    ),
    "of another action": (CHECKOUT, {**ACTION, "GITHUB_ACTION_REPOSITORY": "evil/action"}, "__actions_checkout"),
    "of another action, by dots": (
        (NODE, f"{WORK}/_actions/actions/checkout/../../evil/action/v1/x.js"),
        ACTION,
        "__actions_checkout",
    ),
    "of a part of a name": (CHECKOUT, {**ACTION, "GITHUB_ACTION_REPOSITORY": "actions/check"}, "__actions_checkout"),
    "of no repository": (CHECKOUT, {**ACTION, "GITHUB_ACTION_REPOSITORY": "actions"}, "__actions_checkout"),
    "of dots": (CHECKOUT, {**ACTION, "GITHUB_ACTION_REPOSITORY": "actions/.."}, "__actions_checkout"),
    "without a workspace": (CHECKOUT, {**ACTION, "GITHUB_WORKSPACE": ""}, "__actions_checkout"),
}


def environment(variables: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in variables.items())


@pytest.mark.parametrize("case", BELIEVED)
def test_what_the_runner_says(case: str) -> None:
    argv, variables, step = BELIEVED[case]
    assert read_step(argv, environment(variables)) == step


@pytest.mark.parametrize("case", PLANTED)
def test_an_action_that_an_earlier_step_wrote(case: str) -> None:
    argv, variables, step = PLANTED[case]
    assert read_step(argv, environment(variables)) == Step(step, None)


@pytest.mark.parametrize(
    "strings",
    [
        (),
        ("PATH=/usr/bin",),
        ("GITHUB_ACTION=",),
        ("GITHUB_ACTION=build", "GITHUB_ACTION=release"),
        ("GITHUB_ACTION=build", "A=1", "A=2"),
        ("GITHUB_ACTION",),
    ],
    ids=["nothing", "not a step", "empty", "two answers", "two of another", "no value"],
)
def test_no_step(strings: tuple[str, ...]) -> None:
    assert read_step(SCRIPT, strings) == UNKNOWN_STEP
