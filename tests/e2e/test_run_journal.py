"""The journal: a record for each decision, with its owner; what can't be written stops nothing and is told."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import PYTHON, Inside, Laptop, as_sudo, question

pytestmark = pytest.mark.kernel

ECHO = atlas.ECHO_PORT
USER = pwd.getpwnam("games")
TCP, UDP = 6, 17
BASH = "/usr/bin/bash"
POLICY = f"""\
{atlas.ALLOWED.v4}:{ECHO}
*.{atlas.WILDCARD_ZONE}
# by owner, both families
{atlas.ALLOWED.v4}:{atlas.DISCARD_PORT} exe={BASH}
[{atlas.ALLOWED.v6}]:{atlas.DISCARD_PORT} exe={BASH}
{atlas.ALLOWED.v4}:{atlas.DAYTIME_PORT} arg=allowed-word
{atlas.ALLOWED.v4}:{atlas.CHARGEN_PORT} user=games
{atlas.SHARED.v4}:80 user=daemon
{atlas.ALLOWED.v4}:80 cgroup=*/dnsfw-*
{atlas.ALLOWED.v4}:443 cgroup=*/another-*
{atlas.ALLOWED_NAME} exe={BASH}
"""

# One thing each, by a process whose arguments say which.
SPEAK = """
import socket, sys
_, way, address, port, text = sys.argv[:5]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM if way == "tcp" else socket.SOCK_DGRAM) as sock:
    sock.settimeout(1)
    try:
        if way == "sendto":
            sock.sendto(bytes.fromhex(text), (address, int(port)))
        else:
            sock.connect((address, int(port)))
            sock.sendall(bytes.fromhex(text))
        sock.recv(100)
    except OSError:
        pass
"""


class Written:
    """The journal as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def await_record(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The one record that is wanted; the writer takes its time."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            lines = self._path.read_text().splitlines(keepends=True)
            records: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("\n")]
            found = [record for record in records if wanted(record)]
            if found:
                assert len(found) == 1, found
                return found[0]
            time.sleep(0.02)
        raise AssertionError("no such record")


@pytest.fixture(scope="module")
def laptop(world: Playground, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    laptop = Laptop(world, tmp_path_factory.mktemp("journal"))
    for folder in (laptop.directory, *laptop.directory.parents[:2]):
        folder.chmod(0o755)
    os.chown(laptop.directory, USER.pw_uid, USER.pw_gid)
    return laptop


@pytest.fixture(scope="module")
def written(laptop: Laptop) -> Written:
    return Written(laptop.directory / "journal")


@pytest.fixture(scope="module")
def inside(laptop: Laptop) -> Iterator[Inside]:
    journal = ["--journal", str(laptop.directory / "journal")]
    with laptop.agent(POLICY, *journal, prefix=as_sudo(USER.pw_uid, USER.pw_gid)) as inside:
        yield inside


def speak(inside: Inside, way: str, address: str, port: int, text: str = "00", *marks: str) -> str:
    """A process does that; a word among its arguments that no other has."""
    mark = secrets.token_hex(8)
    assert inside.run(PYTHON, "-c", SPEAK, way, address, str(port), text, mark, *marks)["status"] == 0
    return mark


@pytest.mark.parametrize(
    ("way", "proto"),
    [("tcp", TCP), ("connect", UDP), ("sendto", UDP)],
    ids=["tcp", "connected udp", "unconnected udp"],
)
@pytest.mark.parametrize("address", atlas.EVIL.addresses)
def test_the_owner_of_a_flow(inside: Inside, written: Written, way: str, proto: int, address: str) -> None:
    mark = speak(inside, way, address, 4444)
    record = written.await_record(lambda record: mark in (record["owner"] or {}).get("argv", ()))
    subject = record["subject"]
    assert (subject["kind"], subject["proto"], subject["dst"], subject["dport"]) == ("flow", proto, address, 4444)
    assert_owner(inside, record["owner"])


@pytest.mark.parametrize(("way", "proto"), [("tcp", TCP), ("connect", UDP), ("sendto", UDP)])
@pytest.mark.parametrize("server", [atlas.UPSTREAM.v4, atlas.UPSTREAM.v6, "127.0.0.1", "::1"])
def test_the_owner_of_a_question(inside: Inside, written: Written, way: str, proto: int, server: str) -> None:
    name = f"{secrets.token_hex(4)}.{atlas.EVIL_ZONE}"
    message = bytes.fromhex(question(name, "AAAA"))
    mark = speak(inside, way, server, 53, (len(message).to_bytes(2) * (way == "tcp") + message).hex())
    record = written.await_record(lambda record: record["subject"].get("name") == name)
    assert (record["subject"]["kind"], record["subject"]["qtype"], record["subject"]["proto"]) == ("query", 28, proto)
    assert mark in record["owner"]["argv"]
    assert_owner(inside, record["owner"])


def assert_owner(inside: Inside, owner: dict[str, Any]) -> None:
    assert Path(owner["exe"]) == Path(PYTHON).resolve()
    assert owner["argv"][:2] == [PYTHON, "-c"]
    assert owner["uid"] == USER.pw_uid
    own = inside.read("/proc/self/cgroup").splitlines()[-1].removeprefix("0::")
    assert owner["cgroup"] == own
    assert owner.get("complete", True)  # left out where it is
    assert owner["pid"] > 0
    assert owner["start_time"] > 0


def test_a_record_says_everything(inside: Inside, written: Written, laptop: Laptop) -> None:
    mark = speak(inside, "tcp", atlas.ALLOWED.v4, ECHO)
    record = written.await_record(lambda record: mark in (record["owner"] or {}).get("argv", ()))
    assert record["v"] == 1
    when = datetime.fromisoformat(record["time"])
    assert abs(when.timestamp() - time.time()) < 60
    assert record["time"].endswith("Z")
    assert (record["mode"], record["decision"], record["reason"]) == ("enforce", "allow", "allow-rule")
    assert record["rule"]["line"] == 1
    assert record["rule"]["text"] == f"{atlas.ALLOWED.v4}:{ECHO}"
    assert record["rule"]["file"].endswith(".policy")
    assert record["fault"] is None
    assert record["names"] == []


def test_a_flow_is_named_by_what_was_resolved(inside: Inside, written: Written) -> None:
    name = f"{secrets.token_hex(4)}.{atlas.WILDCARD_ZONE}"
    assert inside.resolve(name) == sorted(atlas.SHARED.addresses)
    mark = speak(inside, "tcp", atlas.SHARED.v6, 443)

    def said(decision: str) -> dict[str, Any]:
        return written.await_record(
            lambda record: mark in (record["owner"] or {}).get("argv", ()) and record["decision"] == decision
        )

    opened, spoken = said("peek"), said("deny")
    assert name in opened["names"]
    assert (opened["seen"], opened["rule"]["text"]) == (None, f"*.{atlas.WILDCARD_ZONE}")
    assert name in spoken["names"]
    assert (spoken["seen"], spoken["reason"]) == ({"protocol": "other", "name": None}, "no-name")


def test_one_decision_one_record(inside: Inside, written: Written) -> None:
    """A connection of many packets is one decision; `await_record` would complain of two records."""
    port = inside.tcp(atlas.ALLOWED.v4, ECHO, "hello", keep="talk")["port"]
    for _ in range(10):
        assert inside.again("talk", "more") == "more"
    last = speak(inside, "tcp", atlas.EVIL.v4, 4444)  # whatever came before it is written when it is
    written.await_record(lambda record: last in (record["owner"] or {}).get("argv", ()))
    written.await_record(lambda record: record["subject"].get("sport") == port)


def connects(inside: Inside, program: str, address: str, port: int, *arguments: str) -> bool:
    """Does `program`, bash or Python, open a connection?"""
    if program == BASH:
        script = f"exec 3<>/dev/tcp/{address}/{port}"
        return bool(inside.run(BASH, "-c", script, *arguments)["status"] == 0)
    script = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"
    return bool(inside.run(PYTHON, "-c", script, address, str(port), *arguments)["status"] == 0)


@pytest.mark.parametrize("address", atlas.ALLOWED.addresses)
def test_exe_is_enforced(inside: Inside, address: str) -> None:
    assert connects(inside, BASH, address, atlas.DISCARD_PORT)
    assert not connects(inside, PYTHON, address, atlas.DISCARD_PORT)


def test_arg_is_enforced(inside: Inside) -> None:
    assert connects(inside, PYTHON, atlas.ALLOWED.v4, atlas.DAYTIME_PORT, "allowed-word")
    assert not connects(inside, PYTHON, atlas.ALLOWED.v4, atlas.DAYTIME_PORT, "another-word")


def test_user_is_enforced(inside: Inside) -> None:
    assert connects(inside, PYTHON, atlas.ALLOWED.v4, atlas.CHARGEN_PORT)
    assert not connects(inside, PYTHON, atlas.SHARED.v4, 80)


def test_cgroup_is_enforced(inside: Inside) -> None:
    assert connects(inside, PYTHON, atlas.ALLOWED.v4, 80)
    assert not connects(inside, PYTHON, atlas.ALLOWED.v4, 443)


def test_names_are_enforced_by_owner(inside: Inside) -> None:
    """The question itself: bash asks through the C library, as does Python."""
    assert connects(inside, BASH, atlas.ALLOWED_NAME, 443)
    assert "not known" in inside.resolve(atlas.ALLOWED_NAME)


def test_the_journal_is_the_callers_file(inside: Inside, laptop: Laptop) -> None:
    assert inside.ready()
    file = (laptop.directory / "journal").stat()
    assert (file.st_uid, stat.S_IMODE(file.st_mode)) == (USER.pw_uid, 0o600)


def test_a_second_run_appends(laptop: Laptop) -> None:
    journal = laptop.directory / "appended"
    for _ in range(2):
        assert laptop.run("", ["getent", "ahostsv4", "name.test"], "-q", "--journal", str(journal)).returncode == 2
    names = [json.loads(line)["subject"]["name"] for line in journal.read_text().splitlines()]
    assert names == ["name.test"] * 2


def storm(inside: Inside, count: int) -> None:
    """Many denials, and an allowed flow that must go on."""
    for number in range(count):
        assert inside.tcp(atlas.EVIL.v4, 2000 + number)["outcome"] == "ECONNREFUSED"
    assert inside.tcp(atlas.ALLOWED.v4, ECHO, "hello")["reply"] == "hello"


def test_a_full_disk_stops_and_opens_nothing(laptop: Laptop) -> None:
    full = laptop.directory / "full"
    full.mkdir(exist_ok=True)
    mounts = f"mount -t tmpfs -o size=8k none {full}"
    with laptop.agent(POLICY, "--journal", str(full / "journal"), mounts=mounts) as inside:
        storm(inside, 100)
        status, said = inside.leave()
    assert status == 0
    assert "journal records lost: No space left on device" in said
    assert "dnsfw: 100 denied" in said


def test_a_reader_that_does_not_read_stops_and_opens_nothing(laptop: Laptop) -> None:
    pipe = laptop.directory / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    with laptop.agent(POLICY, "--journal", str(pipe)) as inside:
        storm(inside, 100)
        began = time.monotonic()
        status, said = inside.leave()
    os.close(reader)
    assert status == 0
    assert time.monotonic() - began < 5
    assert "journal records lost" in said
    assert "dnsfw: 100 denied" in said


def test_a_reader_that_leaves_stops_and_opens_nothing(laptop: Laptop) -> None:
    pipe = laptop.directory / "left"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with laptop.agent(POLICY, "--journal", str(pipe)) as inside:
        os.close(reader)
        storm(inside, 10)
        status, said = inside.leave()
    assert status == 0
    assert "journal records lost: Broken pipe" in said
