"""What the machine says of itself, read without a machine: mounts, users, resolvers; and the two ends' messages."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsfw.channel import Failed, Finish, Finished, Listening, Message, Serving, Turned, channel_pair
from dnsfw.errors import EXIT_USAGE, SetupError, UsageError
from dnsfw.journal.lifecycle import Life, Turn
from dnsfw.machine.cgroups import own_directory, parse_mounts
from dnsfw.machine.privilege import ROOT, User, calling_user
from dnsfw.policies.reading import Surroundings, load_policy

HYBRID = """\
sysfs /sys sysfs rw 0 0
tmpfs /sys/fs/cgroup tmpfs ro 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0
"""


@pytest.mark.parametrize(
    ("mounts", "root"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n", "/sys/fs/cgroup"),
        (HYBRID, "/sys/fs/cgroup/unified"),
        ("cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n", None),
        ("", None),
        ("a\rb\x0cc\x85d\u2028e\udcff /home/x fuse rw 0 0\n" + HYBRID, "/sys/fs/cgroup/unified"),
    ],
    ids=["unified", "hybrid", "version 1", "nothing", "a user's own mount"],
)
def test_where_cgroup2_is_mounted(mounts: str, root: str | None) -> None:
    assert parse_mounts(mounts) == (None if root is None else Path(root))


@pytest.mark.parametrize(
    ("text", "directory"),
    [
        ("0::/\n", "/cg"),
        ("0::/user.slice/session.scope\n", "/cg/user.slice/session.scope"),
        ("9:name=systemd:/a\n4:memory:/b\n0::/c:d\n", "/cg/c:d"),
        ("4:memory:/b\n", "/cg"),
        ("0::/a\r0::\x850::/b\n", "/cg/a\r0::\x850::/b"),
    ],
    ids=["root", "session", "hybrid", "version 1", "odd names"],
)
def test_our_own_cgroup(text: str, directory: str) -> None:
    assert own_directory(Path("/cg"), text) == Path(directory)


def test_who_called() -> None:
    games = pwd.getpwnam("games")
    found = calling_user({"SUDO_UID": str(games.pw_uid), "SUDO_GID": "0", "HOME": "/root"})
    assert (found.uid, found.gid, found.name, found.home) == (games.pw_uid, games.pw_gid, "games", games.pw_dir)
    assert set(found.groups) == set(os.getgrouplist("games", games.pw_gid))
    assert calling_user({}).uid == calling_user({"SUDO_UID": ""}).uid == os.getuid()


def test_a_caller_without_an_account() -> None:
    assert calling_user({"SUDO_UID": "54321", "SUDO_GID": "54322", "HOME": "/h"}) == User(
        54321, 54322, (54322,), "54321", "/h", "/bin/sh"
    )


@pytest.mark.parametrize("text", ["root", "-1", "1.0", "٣", " 1", "4294967295", "99999999999999999999"])
@pytest.mark.parametrize("variable", ["SUDO_UID", "SUDO_GID"])
def test_a_caller_that_can_not_be(variable: str, text: str) -> None:
    with pytest.raises(SetupError, match=f"{variable} is '"):
        calling_user({"SUDO_UID": "54321", variable: text})


_texts = st.lists(st.text(max_size=20), max_size=5).map(tuple)
messages = st.one_of(
    st.builds(Listening, _texts),
    st.builds(Serving, st.dictionaries(st.text(max_size=9), st.text(max_size=9)), st.just((("/a", "/b"),))),
    st.builds(Turned, st.builds(Life, st.sampled_from(Turn), st.floats(0, 2e9), st.just("proxy"), st.text(), _texts)),
    st.builds(Failed, st.text(max_size=200), st.text(max_size=200), st.integers(0, 255)),
    st.just(Finish()),
    st.builds(Finished, st.integers(0), st.text(max_size=500)),
)


@settings(deadline=None)  # a busy machine proves nothing
@given(st.lists(messages, max_size=5))
def test_what_one_end_says_the_other_hears(said: list[Message]) -> None:
    ours, theirs = channel_pair()
    for message in said:
        ours.send(message)
    ours.close()
    assert [theirs.receive(1.0) for _ in said] == said
    assert theirs.receive(1.0) is None  # the end
    with pytest.raises(OSError, match="Broken pipe"):
        theirs.send(Finish())
    theirs.close()


def test_patience_ends() -> None:
    ours, theirs = channel_pair()
    with pytest.raises(TimeoutError):
        ours.receive(0.01)
    ours.close()
    theirs.close()


SURROUNDINGS = Surroundings({}, ROOT)


def test_all_mistakes_of_a_policy_with_their_places(tmp_path: Path) -> None:
    policy = tmp_path / "my.policy"
    policy.write_text("github.com\nexample..com\n  999.1.1.1\n" + "user\u00e9:x\n" * 30)
    with pytest.raises(UsageError) as refused:
        load_policy(policy, SURROUNDINGS)
    assert refused.value.exit_status == EXIT_USAGE
    said = refused.value.problem
    assert f"The policy {policy} has 32 mistakes:" in said
    assert f"{policy}:2:" in said
    assert f"{policy}:3:" in said
    assert "… and 12 more" in said
    assert refused.value.remedy


def test_no_policy_denies_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_policy(None, SURROUNDINGS).policy.rules == ()
    (tmp_path / "dnsfw.policy").write_text("example.com\n")
    assert len(load_policy(None, SURROUNDINGS).policy.rules) == 1


@pytest.mark.parametrize(("place", "reason"), [("none", "No such file"), (".", "Is a directory")])
def test_a_policy_that_cannot_be_read(tmp_path: Path, place: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        load_policy(tmp_path / place, SURROUNDINGS)


def test_users_are_looked_up_and_unknown_ones_are_mistakes(tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.write_text("example.com user=games\n")
    (rule,) = load_policy(policy, SURROUNDINGS).policy.rules
    assert rule.who[0].value == str(pwd.getpwnam("games").pw_uid)
    policy.write_text("example.com user=nobody-of-that-name\n")
    with pytest.raises(UsageError, match="nobody-of-that-name"):
        load_policy(policy, SURROUNDINGS)
