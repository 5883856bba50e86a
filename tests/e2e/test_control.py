"""A guard in force, asked over its control socket: by root, by the user who started it, and by others."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dnsfw.control import SOCKET
from dnsfw.playground import atlas
from dnsfw.playground.world import Playground, Setting
from tests.e2e.guards import up

pytestmark = pytest.mark.kernel

STARTER, STRANGER = pwd.getpwnam("games"), pwd.getpwnam("mail")
CALLED = ["env", f"SUDO_UID={STARTER.pw_uid}", f"SUDO_GID={STARTER.pw_gid}"]
TOKEN = "a token of more than sixteen characters"
POLICY = f"{atlas.ALLOWED_NAME}\n*.{atlas.WILDCARD_ZONE}\n"
# Sends a question as that user, and prints the answer: users can't start our own Python, which is root's.
ASK = """
import json, os, socket, sys
path, uid, question, token = sys.argv[1:]
os.setgroups([]); os.setresgid(int(uid), int(uid), int(uid)); os.setresuid(int(uid), int(uid), int(uid))
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(path)
    except PermissionError:
        sys.exit("another user's")
    body = json.dumps({"v": 1, "ask": {"type": question}, "token": token}).encode()
    sock.sendall(len(body).to_bytes(4, "big") + body)
    heard = b""
    while part := sock.recv(65536):
        heard += part
print(heard[4:].decode())
"""


@pytest.fixture(scope="module")
def laptop() -> Iterator[Playground]:
    with Playground(Setting()) as world:
        yield world


@pytest.fixture(scope="module")
def guard(laptop: Playground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    folder = tmp_path_factory.mktemp("control")
    (folder / "token").write_text(f"{TOKEN}\n")
    journal = folder / "journal"
    options = ["--token-file", str(folder / "token"), "--journal", str(journal), "--metrics-port", "9153"]
    with up(laptop, folder, *options, policy=POLICY, prefix=CALLED) as process:
        yield process


def name(laptop: Playground) -> str:
    return "up-" + laptop.run(["stat", "-Lc", "%i", "/proc/self/ns/net"]).stdout.strip()


def dnsfw(laptop: Playground, *arguments: str) -> subprocess.CompletedProcess[str]:
    return laptop.run(laptop.dnsfw(*arguments))


def status(laptop: Playground) -> dict[str, Any]:
    (told,) = json.loads(dnsfw(laptop, "status", "--json", name(laptop)).stdout)
    assert isinstance(told, dict)
    return told


def ask(laptop: Playground, uid: int, question: str, token: str = "") -> Any:
    """What that user hears."""
    path = f"/run/dnsfw/{name(laptop)}/{SOCKET}"
    done = laptop.run(["/usr/bin/python3", "-c", ASK, path, str(uid), question, token])
    return json.loads(done.stdout)["said"] if done.returncode == 0 else done.stderr.strip()


def test_status_says_what_happened(laptop: Playground, guard: subprocess.Popen[str]) -> None:
    laptop.run(["curl", "-sS", "--cacert", str(laptop.authority), f"https://{atlas.ALLOWED_NAME}/"])
    laptop.run(["curl", "-sS", f"https://{atlas.EVIL_ZONE}/"])
    told = status(laptop)
    assert (told["mode"], told["guards"], told["policy"]["rules"]) == ("enforce", "host", 2)
    digest = laptop.run(["sha256sum", told["policy"]["file"]]).stdout.split()[0]
    assert told["policy"]["sha256"] == digest
    assert told["counts"]["allowed"] > 0
    assert any(denial["what"] == f"resolve {atlas.EVIL_ZONE}" for denial in told["denials"])
    assert told["upstreams"][0]["state"] == "answers"
    assert told["bindings"]["addresses"] >= 2
    assert told["lives"]["restarts"] == 0
    assert told["owners"]["source"] == "BPF on packets as they are sent"
    assert told["owners"]["counts"]["known"] > 0
    tables = {"flows", "sockets", "programs", "connections", "children"}
    assert told["owners"]["evicted"] == dict.fromkeys(tables, 0)
    text = dnsfw(laptop, "status", name(laptop)).stdout
    assert "enforcing, guarding this host since" in text
    assert "was down    never" in text
    assert "owners      BPF on packets as they are sent: " in text


def test_flows_and_bindings_show_what_is_open(laptop: Playground, guard: subprocess.Popen[str]) -> None:
    laptop.run(["curl", "-sS", "--cacert", str(laptop.authority), f"https://{atlas.ALLOWED_NAME}/"])
    bindings = json.loads(dnsfw(laptop, "bindings", "--json").stdout)["bindings"]
    assert {binding["address"] for binding in bindings} >= set(atlas.ALLOWED.addresses)
    (flow, *_) = json.loads(dnsfw(laptop, "flows", "--json").stdout)["flows"]
    assert flow["names"] == [atlas.ALLOWED_NAME]
    assert flow["exe"].endswith("curl")
    assert atlas.ALLOWED_NAME in dnsfw(laptop, "flows").stdout


def test_health_tries_the_guard_and_is_in_no_other_count(laptop: Playground, guard: subprocess.Popen[str]) -> None:
    """A3."""
    before = status(laptop)["counts"]
    done = dnsfw(laptop, "health")
    assert (done.returncode, done.stdout.count("✓")) == (0, 4), done.stdout + done.stderr
    after = status(laptop)["counts"]
    assert after["denied"] == before["denied"]


def test_health_sees_a_host_that_is_open(laptop: Playground, guard: subprocess.Popen[str]) -> None:
    """A3: it answers truly. Here somebody has thrown our table away."""
    laptop.run(["nft", "flush", "chain", "inet", "dnsfw", "judge"])
    laptop.run(["nft", "add", "rule", "inet", "dnsfw", "judge", "accept"])
    laptop.run(["nft", "insert", "rule", "inet", "dnsfw", "enforce", "accept"])
    done = dnsfw(laptop, "health")
    assert done.returncode == 1
    assert "✗ connect to 192.0.2.1, which is denied" in done.stdout
    assert "the gate was not asked" in done.stdout
    dnsfw(laptop, "reload")


@pytest.mark.parametrize(
    ("uid", "token", "question", "heard"),
    [
        (STARTER.pw_uid, "", "status", "status-report"),
        (STARTER.pw_uid, "", "bindings", "bindings-report"),
        (STARTER.pw_uid, "", "reload", "refused"),
        (STARTER.pw_uid, "", "stop", "refused"),
        (STARTER.pw_uid, TOKEN[:-1], "stop", "refused"),
        (STARTER.pw_uid, TOKEN, "reload", "reload-report"),
        (STRANGER.pw_uid, TOKEN, "status", None),
        (STRANGER.pw_uid, TOKEN, "stop", None),
        (65534, TOKEN, "stop", None),
    ],
    ids=["look", "look 2", "reload", "stop", "wrong token", "token", "stranger", "stranger's stop", "nobody"],
)
def test_who_is_answered(  # noqa: PLR0917
    laptop: Playground, guard: subprocess.Popen[str], uid: int, token: str, question: str, heard: str | None
) -> None:
    """S6."""
    said = ask(laptop, uid, question, token)
    assert said == "another user's" if heard is None else said["type"] == heard
    assert guard.poll() is None


def test_metrics_are_served_on_loopback_and_over_the_socket(laptop: Playground, guard: subprocess.Popen[str]) -> None:
    over_http = laptop.run(["curl", "-sS", "http://127.0.0.1:9153/metrics"]).stdout
    over_socket = dnsfw(laptop, "metrics").stdout
    for text in (over_http, over_socket):
        assert 'dnsfw_info{guards="host",mode="enforce",version=' in text
        assert 'dnsfw_decisions_total{decision="deny"' in text
    assert laptop.run(["curl", "-sS", "--max-time", "3", f"http://{atlas.LAPTOP.v4}:9153/"]).returncode != 0


def test_a_command_under_run_finds_no_control_socket(laptop: Playground, tmp_path: Path) -> None:
    """It runs as the user who started its guard."""
    command = ["sh", "-c", "ls -A /run/dnsfw | wc -l; cat /proc/net/unix | grep -c run/dnsfw"]
    done = laptop.run(laptop.dnsfw("run", "-q", "--", *command))
    assert done.stdout.split() == ["0", "0"]


def test_a_guarded_command_can_be_asked_about_tried_and_stopped(host: Playground, tmp_path: Path) -> None:
    (tmp_path / "policy").write_text(POLICY)
    tell = ["sh", "-c", "echo begun; exec cat"]
    command = host.dnsfw("run", "-q", "--policy", str(tmp_path / "policy"), "--", *tell)
    before = {path.name for path in Path("/run/dnsfw").glob("dnsfw-*")}
    with host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        runs = [path.name for path in Path("/run/dnsfw").glob("dnsfw-*") if path.name not in before]
        told = [one for run in runs for one in json.loads(dnsfw(host, "status", "--json", run).stdout)]
        ours = next(one for one in told if one["policy"]["file"] == str(tmp_path / "policy"))
        assert (ours["guards"], ours["mode"]) == ("command", "enforce")
        tried = dnsfw(host, "health", ours["name"])
        assert (tried.returncode, tried.stdout.count("✓")) == (0, 4), tried.stdout + tried.stderr
        assert dnsfw(host, "stop", ours["name"]).returncode == 0
        assert process.wait(10) == 128 + signal.SIGTERM


def test_stop_with_the_token_takes_the_guard_down(host: Playground, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with up(host, tmp_path, "--token-file", str(token), prefix=CALLED) as process:
        assert ask(host, STARTER.pw_uid, "stop", TOKEN)["type"] == "accepted"
        assert process.wait(20) == 0
        none = dnsfw(host, "status", name(host))
        assert (none.returncode, none.stderr) == (1, "No guard is in force.\n")


@pytest.mark.parametrize("content", ["", "\n", "short"])
def test_a_token_that_is_none_starts_nothing(laptop: Playground, tmp_path: Path, content: str) -> None:
    """S6."""
    (tmp_path / "token").write_text(content)
    refused = dnsfw(laptop, "up", "--token-file", str(tmp_path / "token"))
    assert refused.returncode == 2
    assert "shorter than 16 characters" in refused.stderr


def test_a_journal_is_turned_over_by_the_supervisor(laptop: Playground, tmp_path: Path) -> None:
    """R3: the engine may not make files where the journal is."""
    journal = tmp_path / "of-root" / "journal"
    journal.parent.mkdir(mode=0o700)
    ask_often = (
        "import socket, sys\n"
        "for n in range(6000):\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:\n"
        "        s.settimeout(5); s.connect(('127.0.0.1', 53))\n"
        "        s.send(b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\x05%05d\\x04test\\0\\0\\1\\0\\1' % n); s.recv(512)\n"
    )
    limits = ["--journal", str(journal), "--journal-mebibytes", "1", "--journal-files", "2", "-q"]
    done = laptop.run(laptop.dnsfw("run", *limits, "--", "/usr/bin/python3", "-c", ask_often), timeout=50)
    assert done.returncode == 0, done.stderr
    files = sorted(path.name for path in journal.parent.iterdir())
    assert files == ["journal", "journal.1"]
    assert all(path.stat().st_size < 2 << 20 for path in journal.parent.iterdir())
    kept = [json.loads(line) for file in reversed(files) for line in (journal.parent / file).read_text().splitlines()]
    names = sorted(record["subject"]["name"] for record in kept)
    assert names == [f"{number:05}.test" for number in range(6000 - len(names), 6000)]
    assert len(names) > 1000


def test_lockdown_holds_while_the_host_is_guarded(host: Playground, tmp_path: Path) -> None:
    """S7. The laptop's mounts are its own, so /etc/sudoers is too."""
    visudo = shutil.which("visudo")
    if visudo is None:
        pytest.skip("this machine lacks visudo")
    before = Path("/etc/sudoers").read_bytes()
    options = ["--lock-sudo", "games"]
    with up(host, tmp_path, *options, prefix=CALLED):
        shown = host.run(["cat", "/etc/sudoers"]).stdout
        assert shown.endswith(f"#{STARTER.pw_uid} ALL=(ALL:ALL) !ALL\n")
        assert status(host)["lockdown"] == ["games has no sudo"]
        assert dnsfw(host, "sudo", "on").stdout == "games has sudo again\n"
        assert host.run(["cat", "/etc/sudoers"]).stdout.encode() == before
        assert dnsfw(host, "sudo", "off").stdout == "games has no sudo\n"
    assert host.run(["cat", "/etc/sudoers"]).stdout.encode() == before
    assert Path("/etc/sudoers").read_bytes() == before


def test_a_guard_that_took_nothing_has_nothing_to_give_back(laptop: Playground, guard: subprocess.Popen[str]) -> None:
    done = dnsfw(laptop, "sudo", "on")
    assert done.returncode == 125
    assert "has taken sudo from nobody" in done.stderr
    assert status(laptop)["lockdown"] == []


def test_a_dead_engine_is_told_by_status(host: Playground, tmp_path: Path) -> None:
    with up(host, tmp_path, prefix=CALLED) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGSTOP)  # it neither answers nor ends
        os.kill(int(children[0]), signal.SIGKILL)
        assert process.stderr is not None
        assert "died" in process.stderr.readline()
        assert "at work again" in process.stderr.readline()
        lives = status(host)["lives"]
        assert (lives["restarts"], "SIGKILL" in lives["reason"]) == (1, True)
