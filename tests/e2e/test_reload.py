"""A guard in force takes another policy: whole, or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e import guards

pytestmark = pytest.mark.kernel

ECHO = f"{atlas.ALLOWED.v4}:{atlas.ECHO_PORT}\n"
NAME = f"{atlas.ALLOWED_NAME}\n"
# Connects, then says each line of its input and shows what comes back, or how it failed.
TALKER = """
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
peer.settimeout(2)
print("connected", flush=True)
for line in sys.stdin:
    try:
        peer.sendall(line.encode())
        print(peer.recv(100).decode().strip() or "closed", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


def hear(stream: IO[str] | None) -> str:
    """One line."""
    assert stream is not None
    return stream.readline().strip()


@dataclass(frozen=True, slots=True)
class Up:
    """`dnsfw up` on a laptop, whose policy can be written again."""

    laptop: Playground
    process: subprocess.Popen[str]
    policy: Path
    journal: Path

    def reload(self, text: str) -> str:
        """Write the policy, send SIGHUP; what is said of it."""
        self.policy.write_text(text)
        self.process.send_signal(signal.SIGHUP)
        return hear(self.process.stderr)

    def engine(self) -> int:
        (engine,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(engine)

    def resolves(self, name: str) -> bool:
        return self.laptop.run(["getent", "ahosts", name]).returncode == 0

    def await_word(self, life: str) -> None:
        """Until the journal has it: what it has not written yet, a SIGKILL takes along."""
        deadline = time.monotonic() + 10
        while f'"life":"{life}"' not in self.journal.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def lives(self) -> list[dict[str, Any]]:
        """The journal's turns, once the guard has ended."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(10)
        records = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [record for record in records if "life" in record]


@pytest.fixture
def up(host: Playground, tmp_path: Path) -> Iterator[Up]:
    journal = tmp_path / "journal"
    with guards.up(host, tmp_path, "--journal", str(journal), policy=ECHO) as process:
        yield Up(host, process, tmp_path / "policy", journal)


def test_the_new_policy_is_in_force_and_the_journal_says_what_changed(up: Up) -> None:
    assert not up.resolves(atlas.ALLOWED_NAME)
    assert "another policy is in force" in up.reload(NAME)
    assert up.resolves(atlas.ALLOWED_NAME)  # neither the gate nor the resolver remembers the denial
    assert "another policy is in force" in up.reload(ECHO)
    assert not up.resolves(atlas.ALLOWED_NAME)  # nor the answer
    lives = up.lives()
    assert [life["life"] for life in lives] == ["reloaded", "reloaded"]
    assert lives[0]["lines"] == [f"+ {NAME.strip()}", f"- {ECHO.strip()}"]
    assert "generation 1, 1 more, 1 less" in lives[0]["reason"]


def test_a_connection_that_was_up_is_judged_by_it(up: Up) -> None:
    command = [sys.executable, "-c", TALKER, atlas.ALLOWED.v4, str(atlas.ECHO_PORT)]
    with up.laptop.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as talker:

        def say(word: str) -> str:
            print(word, file=talker.stdin, flush=True)
            return hear(talker.stdout)

        assert hear(talker.stdout) == "connected"
        assert "another policy is in force" in up.reload(ECHO + NAME)
        assert say("still allowed") == "still allowed"
        assert "another policy is in force" in up.reload(NAME)
        assert say("no more") == "ConnectionAbortedError"


def test_an_invalid_policy_is_refused_with_its_errors_and_the_old_one_stays(up: Up) -> None:
    assert "another policy is in force" in up.reload(NAME)
    said = up.reload("not a policy\n*.*\n")
    assert "the policy in force stays" in said
    assert "2 mistakes" in said
    assert up.resolves(atlas.ALLOWED_NAME)
    up.await_word("reloaded")
    os.kill(up.engine(), signal.SIGKILL)  # nor does the next engine read it
    assert up.resolves(atlas.ALLOWED_NAME)
    lives = up.lives()
    assert [life["life"] for life in lives if life["life"] != "reload-refused"] == [
        "reloaded",
        "died",
        "restarted",
    ]


def test_a_refusal_stands_in_the_journal(up: Up) -> None:
    up.reload("not a policy\n")
    refused, *_ = up.lives()  # once more, if the file's watch saw it too
    assert refused["life"] == "reload-refused"
    assert "1 mistake" in refused["reason"]


def test_rules_with_urls_for_another_host_want_another_start(up: Up) -> None:
    """The proxy's authority is for the hosts that it was made for."""
    assert "Rules with URLs for api.example need another proxy" in up.reload(f"{NAME}https://api.example/*\n")
    assert not up.resolves(atlas.ALLOWED_NAME)


def test_a_policy_that_cannot_be_read_is_refused(up: Up) -> None:
    up.policy.unlink()
    up.process.send_signal(signal.SIGHUP)
    assert "can't be read" in hear(up.process.stderr)


def test_writing_a_file_that_is_roots_alone_is_enough(up: Up) -> None:
    replacement = up.policy.with_name("replacement")
    replacement.write_text(NAME)
    replacement.replace(up.policy)  # as editors do
    assert "another policy is in force" in hear(up.process.stderr)
    assert up.resolves(atlas.ALLOWED_NAME)
    up.policy.write_text(ECHO)
    assert "another policy is in force" in hear(up.process.stderr)
    assert not up.resolves(atlas.ALLOWED_NAME)


def test_writing_one_that_a_guarded_user_may_write_is_not(up: Up) -> None:
    """S4: nobody but root changes the policy by writing."""
    os.chown(up.policy, 12345, -1)
    up.policy.write_text(NAME)
    os.chown(up.policy, 0, -1)
    assert "another policy is in force" in up.reload(ECHO + NAME)  # asked for, and nothing was said before
    assert [life["reason"].rpartition(": ")[2] for life in up.lives()] == ["generation 1, 1 more, 0 less"]


def test_the_command_says_what_changed_or_why_nothing_did(up: Up) -> None:
    up.policy.write_text(NAME)
    done = up.laptop.run(up.laptop.dnsfw("reload"))
    assert done.returncode == 0, done.stderr
    assert f"+ {NAME.strip()}" in done.stdout
    assert f"- {ECHO.strip()}" in done.stdout
    up.policy.write_text("not a policy\n")
    refused = up.laptop.run(up.laptop.dnsfw("reload"))
    assert refused.returncode == 125
    assert "1 mistake" in refused.stderr
    assert "stays in force" in refused.stderr
    assert up.resolves(atlas.ALLOWED_NAME)
