"""`dnsfw run` is transparent: the command's status, streams and surroundings are its own."""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import Laptop

pytestmark = pytest.mark.kernel


@pytest.fixture
def laptop(world: Playground, tmp_path: Path) -> Laptop:
    return Laptop(world, tmp_path)


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "exit 7"], 7, ""),
        (["no-such-program"], 127, "no-such-program: command not found"),
        ([""], 127, "'': command not found"),
        (["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
        (["sh", "-c", "kill -TERM $$"], 128 + 15, ""),
        (["sh", "-c", "kill -KILL $$"], 128 + 9, ""),
    ],
    ids=["success", "its own", "not found", "empty", "not executable", "terminated", "killed"],
)
def test_the_exit_status_is_the_commands(laptop: Laptop, command: list[str], status: int, said: str) -> None:
    done = laptop.run("", command, "--quiet")
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == (f"dnsfw: {said}\n" if said else "")


def test_streams_pass_through_whole_and_apart(laptop: Laptop) -> None:
    """Binary, far larger than a pipe's buffer, on both ways at once."""
    sent = secrets.token_bytes(3 << 20)
    command = laptop.command("", "--quiet", command=["sh", "-c", "echo to stderr >&2; exec cat"])
    streams = subprocess.PIPE
    with laptop.world.popen(command, stdin=streams, stdout=streams, stderr=streams) as process:
        out, err = process.communicate(sent, timeout=30)
    assert (process.returncode, out == sent, err) == (0, True, b"to stderr\n")


def test_a_reader_that_left_is_a_broken_pipe_for_the_command(laptop: Laptop) -> None:
    """As without a guard: `yes | head -1` ends by SIGPIPE."""
    script = shlex.join(laptop.command("", "--quiet", command=["yes"]))
    done = laptop.world.run(["bash", "-c", f"{script} | head -1; echo ${{PIPESTATUS[0]}}"])
    assert done.stdout == "y\n141\n"


def test_descriptors_that_the_caller_passes_arrive(laptop: Laptop) -> None:
    """As `make -j` and `{fd}<>file` need. None of dnsfw's own is among them."""
    script = shlex.join(laptop.command("", "-q", command=["sh", "-c", "ls /proc/self/fd; cat <&7"]))
    done = laptop.world.run(["bash", "-c", f"exec 7<<< hello; {script}"])
    *listed, hello = done.stdout.split()
    assert hello == "hello"
    assert set(listed) == {"0", "1", "2", "3", "7"}  # 3 is the listing's own


def test_fail_on_deny(laptop: Laptop) -> None:
    """3 if something was denied and the command did not mind; its own status is worth more."""
    denied = f"getent hosts {atlas.EVIL_ZONE}; exit "
    assert laptop.run("", ["true"], "--fail-on-deny").returncode == 0
    assert laptop.run("", ["sh", "-c", f"{denied} 0"]).returncode == 0
    assert laptop.run("", ["sh", "-c", f"{denied} 0"], "--fail-on-deny").returncode == 3
    assert laptop.run("", ["sh", "-c", f"{denied} 9"], "--fail-on-deny").returncode == 9


def test_audit_lets_through_and_reports(laptop: Laptop) -> None:
    token = secrets.token_hex(8)
    journal = laptop.directory / "journal"
    fetch = ["curl", "-sS", "-m", "5", "--cacert", str(laptop.world.authority), f"https://{atlas.EVIL_ZONE}/{token}"]
    done = laptop.run("", fetch, "--audit", "--journal", str(journal), "--fail-on-deny")
    assert done.stdout == f"hello from {atlas.EVIL_ZONE}\n"
    assert "https" in {arrival.way for arrival in laptop.world.arrivals(token, within=2)}
    assert "would have been denied" in done.stderr
    assert f"to allow it: {atlas.EVIL_ZONE}" in done.stderr
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {(record["mode"], record["decision"]) for record in records} == {("audit", "deny")}
    assert done.returncode == 3


def test_the_summary_says_what_by_whom_and_what_would_allow_it(laptop: Laptop) -> None:
    done = laptop.run("", ["getent", "ahosts", "name.evil.test"])
    assert done.stderr.splitlines()[0].startswith("dnsfw: 2 denied, 0 allowed")
    assert "✗ resolve name.evil.test ×2  by /usr/bin/getent ahosts name.evil.test (pid " in done.stderr
    assert "no rule names it" in done.stderr
    assert "to allow it: name.evil.test" in done.stderr


def test_the_policy_of_the_folder_is_the_default(laptop: Laptop) -> None:
    (laptop.directory / "dnsfw.policy").write_text(f"{atlas.ALLOWED_NAME}\n")
    command = laptop.world.dnsfw("run", "-q", "--", "getent", "ahostsv4", atlas.ALLOWED_NAME)
    done = laptop.world.run(["env", "-C", str(laptop.directory), *command])
    assert done.stdout.split()[0] == atlas.ALLOWED.v4
    done = laptop.world.run(["env", "-C", "/", *command])
    assert (done.returncode, done.stdout) == (2, "")  # getent's own: not found


def test_the_working_directory_and_the_environment_stay(laptop: Laptop) -> None:
    command = [
        "env",
        "-C",
        str(laptop.directory),
        "WORD=a b",
        *laptop.command("", "-q", command=["sh", "-c", 'pwd; echo "$WORD"; umask']),
    ]
    done = laptop.world.run(command)
    assert done.stdout == f"{laptop.directory}\na b\n{_umask()}\n"


def _umask() -> str:
    return subprocess.run(["sh", "-c", "umask"], capture_output=True, text=True, check=True).stdout.strip()
