"""Lockdown: what is taken, that all of it is given back, and that root is never among those it is taken from."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsfw.errors import SetupError, UsageError
from dnsfw.host.runs import claimed
from dnsfw.lockdown import acl, sudoers
from dnsfw.lockdown.hold import Hold, Host, take_back
from dnsfw.lockdown.wanted import Lockdown, Undo

USER = pwd.getpwnam("games")
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="other users' rights are root's to change")
ENTRIES = st.lists(
    st.tuples(st.sampled_from([acl.Tag.USER, acl.Tag.GROUP]), st.integers(0, 7), st.integers(0, 70_000)),
    max_size=5,
    unique_by=lambda entry: (entry[0], entry[2]),
)


@given(st.binary(max_size=200), st.integers(1, 1 << 31))
def test_our_line_is_the_last_and_nothing_else_changes(before: bytes, uid: int) -> None:
    after = sudoers.denying(before, uid)
    assert after.startswith(before)
    ours = after[len(before) :].decode().lstrip("\n").splitlines()
    assert ours[-1] == f"#{uid} ALL=(ALL:ALL) !ALL"
    assert len(ours) == 2


@pytest.mark.parametrize("uid", [0, -1])
def test_root_is_never_locked_out(uid: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="root keeps sudo"):
        sudoers.denying(b"", uid)
    for wanted in (Lockdown(sudo="root"), Lockdown(containers="root")):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "docker.sock").touch()
        with pytest.raises(UsageError, match="Nothing can be taken from root"):
            Hold(wanted, tmp_path, lambda _: None, Host(tmp_path)).take()


@given(ENTRIES, st.integers(0, 0o777), st.integers(1, 70_000))
def test_a_list_without_one_user_leaves_everybody_else_what_they_had(
    named: list[tuple[int, int, int]], mode: int, uid: int
) -> None:
    plain = acl.without(None, mode, uid)
    attribute = acl._VERSION.pack(2) + b"".join(
        acl._ENTRY.pack(*entry) for entry in sorted([*acl._read(plain), *named])
    )
    before, after = acl._read(attribute), acl._read(acl.without(attribute, mode, uid))
    assert acl.Entry(acl.Tag.USER, 0, uid) in after
    others = [entry for entry in before if (entry.tag, entry.id) != (acl.Tag.USER, uid)]
    assert [entry for entry in after if (entry.tag, entry.id) != (acl.Tag.USER, uid)] == sorted(
        others, key=lambda entry: (entry.tag, entry.id)
    )
    assert [entry.permissions for entry in acl._read(plain) if entry.tag == acl.Tag.OTHER] == [mode & 7]


def test_what_is_no_list_is_refused() -> None:
    for octets in (b"", b"\3\0\0\0", b"\2\0\0\0abc"):
        with pytest.raises(ValueError, match="version 2"):
            acl.without(octets, 0o660, 5)


def host(tmp_path: Path, **sysctls: str) -> Host:
    made = Host(tmp_path / "host")
    (tmp_path / "run").mkdir()
    for name, value in sysctls.items():
        path = made.sysctl(name.replace("__", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return made


def test_sysctls_are_written_down_first_lowered_and_given_back(tmp_path: Path) -> None:
    place = host(tmp_path, kernel__yama__ptrace_scope="1", user__max_user_namespaces="5000")
    told: list[Undo] = []

    def remember(undo: Undo) -> None:
        for name, value in undo.sysctls.items():
            if name not in (told[-1].sysctls if told else {}):
                assert place.sysctl(name).read_text().strip() == value  # not changed yet
        told.append(undo)

    hold = Hold(Lockdown(user_namespaces=True, ptrace=True), tmp_path / "run", remember, place)
    hold.take()
    assert place.sysctl("kernel/yama/ptrace_scope").read_text() == "2"
    assert place.sysctl("user/max_user_namespaces").read_text() == "0"
    assert hold.held() == ("no user namespaces", "ptrace for root alone")
    for _ in range(2):
        take_back(told[-1], place)
        assert place.sysctl("kernel/yama/ptrace_scope").read_text() == "1"
        assert place.sysctl("user/max_user_namespaces").read_text() == "5000"


def test_debians_switch_is_preferred_and_what_is_stricter_already_stays(tmp_path: Path) -> None:
    place = host(
        tmp_path,
        kernel__unprivileged_userns_clone="1",
        user__max_user_namespaces="5000",
        kernel__yama__ptrace_scope="3",
    )
    told: list[Undo] = []
    Hold(Lockdown(user_namespaces=True, ptrace=True), tmp_path / "run", told.append, place).take()
    assert place.sysctl("user/max_user_namespaces").read_text() == "5000\n"
    assert told[-1].sysctls == {"kernel/unprivileged_userns_clone": "1"}
    assert place.sysctl("kernel/yama/ptrace_scope").read_text() == "3\n"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Lockdown(ptrace=True), "no Yama"),
        (Lockdown(user_namespaces=True), "no user namespaces"),
        (Lockdown(sudo="games"), "nobody has sudo here"),
        (Lockdown(sudo="no-such-user-here"), "no user no-such-user-here"),
        (Lockdown(containers="no-such-user-here"), "no user no-such-user-here"),
    ],
    ids=["yama", "namespaces", "sudoers", "sudo user", "container user"],
)
def test_what_cannot_be_had_is_an_error(tmp_path: Path, wanted: Lockdown, said: str) -> None:
    place = host(tmp_path)
    with pytest.raises((SetupError, UsageError), match=said):
        Hold(wanted, tmp_path / "run", lambda _: None, place).take()


CONNECT = """
import os, socket, sys
os.setgroups([60]); os.setresgid(60, 60, 60); os.setresuid(*[int(sys.argv[2])] * 3)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
"""


def connects(path: Path, uid: int) -> bool:
    done = subprocess.run(["/usr/bin/python3", "-c", CONNECT, str(path), str(uid)], capture_output=True, check=False)
    return done.returncode == 0


@ROOT_ONLY
def test_a_container_socket_is_closed_to_one_user_of_its_group(tmp_path: Path) -> None:
    place = host(tmp_path)
    path = place.root / "run/docker.sock"
    path.parent.mkdir(parents=True)
    for folder in (path.parent, *path.parents[:6]):
        if folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o111)
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(path))
        engine.listen()
        path.chmod(0o660)
        os.chown(path, 0, 60)
        told: list[Undo] = []
        hold = Hold(Lockdown(containers="games"), tmp_path / "run", told.append, place)
        assert connects(path, USER.pw_uid)
        hold.take()
        assert (connects(path, USER.pw_uid), connects(path, 8)) == (False, True)
        assert hold.held() == ("container sockets closed to games (1)",)
        for _ in range(2):
            take_back(told[-1], place)
            assert connects(path, USER.pw_uid)
            assert stat.S_IMODE(path.stat().st_mode) == 0o660


# In mounts of its own: what is mounted there nobody else sees.
SUDO = """
import os, stat, sys
from pathlib import Path
from dnsfw.lockdown.hold import Hold, Host, take_back
from dnsfw.lockdown.wanted import Lockdown
root, told = Path(sys.argv[1]), []
before = (root / "host/etc/sudoers").read_bytes()
hold = Hold(Lockdown(sudo="games"), root / "run", told.append, Host(root / "host"))
hold.take()
shown = (root / "host/etc/sudoers").read_text()
mode = stat.S_IMODE((root / "host/etc/sudoers").stat().st_mode)
hold.sudo(on=True)
hold.sudo(on=True)
again = (root / "host/etc/sudoers").read_bytes() == before
hold.sudo(on=False)
hold.sudo(on=False)
held = hold.held()
for _ in range(2):
    take_back(told[-1], Host(root / "host"))
print([shown.splitlines()[-1], oct(mode), again, held, (root / "host/etc/sudoers").read_bytes() == before])
"""


def lock_sudo(tmp_path: Path, visudo: str) -> subprocess.CompletedProcess[str]:
    place = host(tmp_path)
    place.sudoers.parent.mkdir(parents=True)
    place.sudoers.write_text("root ALL=(ALL:ALL) ALL\n%games ALL=(ALL) NOPASSWD: ALL\n")
    place.sudoers.chmod(0o440)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "visudo").write_text(f"#!/bin/sh\n{visudo}\n")
    (programs / "visudo").chmod(0o755)
    environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", SUDO, str(tmp_path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


@pytest.mark.kernel("root")
def test_sudo_is_taken_by_a_mount_and_given_back_as_often_as_asked(tmp_path: Path) -> None:
    """S7: what was there is never copied to where others read, and never changed."""
    done = lock_sudo(tmp_path, 'test "$(cat "${3#--file=}" | wc -l)" = 4')
    expected = [f"#{USER.pw_uid} ALL=(ALL:ALL) !ALL", "0o440", True, ("games has no sudo",), True]
    assert done.stdout.strip() == repr(expected), done.stderr
    made = (tmp_path / "run" / "sudoers").stat()
    assert (stat.S_IMODE(made.st_mode) & 0o007, made.st_uid, made.st_gid) == (0, 0, 0)
    assert (tmp_path / "host/etc/sudoers").read_text().count("!ALL") == 0  # outside that namespace, nothing was


@pytest.mark.kernel("root")
def test_what_visudo_finds_wrong_is_not_shown_to_sudo(tmp_path: Path) -> None:
    done = lock_sudo(tmp_path, "echo 'line 3: syntax error' >&2; exit 1")
    assert "SetupError: sudoers is not valid with our line in it: line 3: syntax error" in done.stderr
    assert done.stdout == ""


@ROOT_ONLY
def test_what_a_guard_took_is_given_back_at_its_end_and_by_the_next_start_if_it_was_killed(tmp_path: Path) -> None:
    place, state = host(tmp_path), tmp_path / "state"
    path = place.root / "run/docker.sock"
    path.parent.mkdir(parents=True)
    path.touch(mode=0o660)

    def closed() -> bool:
        return acl.ATTRIBUTE in os.listxattr(path)

    with claimed("up-1", state) as run:
        Hold(Lockdown(containers="games"), run.directory, run.will_lock_down, place).take()
        assert closed()
        shutil.copytree(run.directory, tmp_path / "up-killed")
        taken = os.getxattr(path, acl.ATTRIBUTE)
    assert not closed()
    os.setxattr(path, acl.ATTRIBUTE, taken)
    shutil.copytree(tmp_path / "up-killed", state / "up-killed")  # nobody holds its lock
    with claimed("up-2", state):
        assert not closed()
