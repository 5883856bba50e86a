"""Who the guarded command is, and what it can't do about its guard."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsfw.machine.cgroups import find_root
from dnsfw.machine.privilege import HARMLESS_TO_THE_GUARD, Capability
from dnsfw.playground.laptop import HELPER_SOCKET
from dnsfw.playground.world import Playground
from tests.e2e.inside import PYTHON, Inside, Laptop, as_sudo

pytestmark = pytest.mark.kernel

CALLER = pwd.getpwnam("games")  # an account of every Debian and Ubuntu that owns nothing here
HIDDEN = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/cups/cups.sock",
]
HIDDEN_OF_USER = [
    "/run/user/{uid}/bus",
    "/run/user/{uid}/systemd/private",
    "/run/user/{uid}/podman/podman.sock",
    "/run/user/{uid}/gnupg/S.dirmngr",
    "/run/user/{uid}/pulse/native",
    "/run/user/{uid}/nvim.4711.0",
    "/run/user/{uid}/sway-ipc.{uid}.4711.sock",
    "/run/user/{uid}/i3/ipc-socket.4711",
]
IN_SIGHT = "/run/harmless/own.sock"


@pytest.fixture(scope="module")
def laptop(world: Playground, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    return Laptop(world, tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="module")
def sockets(laptop: Laptop) -> Iterator[str]:
    """A service that takes connections, shown wherever container engines and buses have theirs."""
    path = laptop.directory / "service"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(100)
        path.chmod(0o666)
        for folder in (laptop.directory, *laptop.directory.parents[:2]):
            folder.chmod(0o755)
        places = [*HIDDEN, *hidden_of(CALLER.pw_uid), *hidden_of(0), IN_SIGHT]
        yield "; ".join(f"mkdir -p {Path(one).parent}; touch {one}; mount --bind {path} {one}" for one in places)


def hidden_of(uid: int) -> list[str]:
    return [path.format(uid=uid) for path in HIDDEN_OF_USER]


@pytest.fixture(scope="module")
def user(laptop: Laptop, sockets: str) -> Iterator[Inside]:
    """The agent, started by sudo for `games`."""
    with laptop.agent("", prefix=as_sudo(CALLER.pw_uid, CALLER.pw_gid), mounts=sockets) as inside:
        yield inside


@pytest.fixture(scope="module")
def root(laptop: Laptop, sockets: str) -> Iterator[Inside]:
    """The agent, started by root itself."""
    with laptop.agent("", mounts=sockets) as inside:
        yield inside


@pytest.fixture(params=["user", "root"])
def anybody(request: pytest.FixtureRequest, user: Inside, root: Inside) -> Inside:
    return {"user": user, "root": root}[request.param]


def status(inside: Inside, pid: str = "self") -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in inside.read(f"/proc/{pid}/status").splitlines() if ":\t" in line)


def test_the_command_is_the_user_who_called_sudo(user: Inside) -> None:
    uid, gid, groups = CALLER.pw_uid, CALLER.pw_gid, os.getgrouplist("games", CALLER.pw_gid)
    found = user.who()
    assert (found["uid"], found["gid"], sorted(found["groups"])) == ([uid] * 3, [gid] * 3, sorted(groups))
    environ = found["environ"]
    assert (environ["HOME"], environ["USER"], environ["LOGNAME"]) == (CALLER.pw_dir, "games", "games")
    assert not [name for name in environ if name.startswith("SUDO_")]


def test_a_user_without_an_account_is_taken_by_number(laptop: Laptop) -> None:
    with laptop.agent("", prefix=as_sudo(54_321, 54_322)) as inside:
        found = inside.who()
    assert (found["uid"], found["gid"], found["groups"]) == ([54_321] * 3, [54_322] * 3, [54_322])


def test_no_capability_and_no_way_to_gain_one(user: Inside) -> None:
    now = status(user)
    assert {now[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert now["NoNewPrivs"] == "1"


def test_root_keeps_what_can_do_the_guard_no_harm(root: Inside) -> None:
    now = status(root)
    harmless = sum(1 << capability for capability in HARMLESS_TO_THE_GUARD)
    assert {int(now[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Bnd")} == {harmless}
    assert {int(now[f"Cap{kind}"], 16) for kind in ("Inh", "Amb")} == {0}
    assert now["NoNewPrivs"] == "1"
    assert root.who()["uid"] == [0, 0, 0]


def test_the_commands_parent_has_little_to_take(anybody: Inside) -> None:
    """PID 1 passes signals on to the user's process, and can do nothing else that its user couldn't."""
    now = status(anybody, "1")
    assert {int(now[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Bnd")} == {1 << Capability.KILL}
    assert now["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    ("family", "kind", "proto"),
    [
        ("AF_PACKET", "SOCK_RAW", 0x0300),
        ("AF_PACKET", "SOCK_DGRAM", 0x0300),
        ("AF_INET", "SOCK_RAW", socket.IPPROTO_RAW),
        ("AF_INET6", "SOCK_RAW", socket.IPPROTO_RAW),
        ("AF_INET", "SOCK_RAW", socket.IPPROTO_ICMP),
    ],
)
def test_no_raw_sockets(anybody: Inside, family: str, kind: str, proto: int) -> None:
    assert anybody.may_open(family, kind, proto) == "EPERM"


@pytest.mark.parametrize(
    "command",
    [
        ["umount", "/etc/resolv.conf"],
        ["umount", "/proc"],
        ["umount", "-l", "/proc/sys"],
        ["umount", "/run/docker.sock"],
        ["mount", "-o", "remount,rw", "/proc/sys"],
        ["mount", "-t", "proc", "proc", "/mnt"],
        ["unshare", "--net", "true"],
        ["unshare", "--mount", "true"],
        # In a user namespace of one's own there are capabilities again, but over nothing of the guard's.
        ["unshare", "--user", "--map-root-user", "--mount", "umount", "/etc/resolv.conf"],
        ["unshare", "--user", "--map-root-user", "--mount", "umount", "-l", "/run/docker.sock"],
        ["unshare", "--user", "--map-root-user", "nft", "add table inet own"],
        ["unshare", "--user", "--map-root-user", "ip", "link", "set", "lo", "down"],
        ["nft", "list", "ruleset"],
        ["nft", "delete table inet dnsfw"],
        ["iptables-nft", "-t", "mangle", "-F", "OUTPUT"],
        ["ip", "link", "set", "lo", "down"],
        ["ip", "route", "add", "192.0.2.66", "dev", "lo"],
        ["mknod", "/tmp/dnsfw-test-node", "c", "1", "1"],
    ],
    ids=" ".join,
)
def test_no_command_undoes_the_guard(anybody: Inside, command: list[str]) -> None:
    done = anybody.run(*command)
    assert done["status"] not in {0, 127}, done
    assert "not found" not in done["err"]


def test_a_program_with_set_uid_gains_nothing(user: Inside) -> None:
    """no_new_privs: mount(8) and passwd(1) run as their caller."""
    asked = "import os, sys; os.execv('/usr/bin/passwd', ['passwd', '--status', '--all'])"
    assert user.run(PYTHON, "-c", asked)["status"] != 0


@pytest.mark.parametrize("kind", ["net", "mnt", "pid", "user", "cgroup"])
def test_no_namespace_can_be_entered(anybody: Inside, kind: str) -> None:
    assert anybody.enter(f"/proc/1/ns/{kind}") in {"EPERM", "EACCES", "EINVAL"}


def test_processes_outside_are_out_of_sight(anybody: Inside) -> None:
    pids = {int(name) for name in anybody.names("/proc") if name.isdigit()}
    assert len(pids) < 5
    assert os.getpid() not in pids
    shown = anybody.read("/proc/1/cmdline").split("\0")
    assert "-I" in shown  # PID 1 is dnsfw's own init


@pytest.mark.parametrize("path", [*HIDDEN, *hidden_of(CALLER.pw_uid)])
def test_services_that_act_for_others_are_out_of_the_users_reach(user: Inside, path: str) -> None:
    assert user.unix(path) in {"ENOENT", "ECONNREFUSED", "EACCES"}


@pytest.mark.parametrize("path", [*HIDDEN, *hidden_of(0)])
def test_services_that_act_for_others_are_out_of_roots_reach(root: Inside, path: str) -> None:
    assert root.unix(path) in {"ENOENT", "ECONNREFUSED", "EACCES"}


def test_other_sockets_stay(anybody: Inside) -> None:
    """Or the tests above would prove nothing."""
    assert anybody.unix(IN_SIGHT) == ""


def test_abstract_sockets_are_the_namespaces_own(anybody: Inside, world: Playground) -> None:
    assert anybody.unix(f"@{world.directory / HELPER_SOCKET}") == "ECONNREFUSED"


SWITCHES = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ping_group_range"]


@pytest.mark.parametrize("path", SWITCHES)
def test_kernel_switches_are_read_only(anybody: Inside, path: str) -> None:
    assert anybody.put(path, "0") in {"EROFS", "EACCES"}


def test_no_process_leaves_its_cgroup(anybody: Inside) -> None:
    mounts = (line.split() for line in anybody.read("/proc/mounts").splitlines())
    top = next(target for _, target, kind, *_ in mounts if kind == "cgroup2")
    own = anybody.read("/proc/self/cgroup").splitlines()[-1]
    assert "/dnsfw-" in own
    assert anybody.put(f"{top}/cgroup.procs", "0") in {"EROFS", "EACCES"}


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A cgroup with two below it, as a user's session has them."""
    top = find_root() / f"dnsfw-test-{os.getpid()}"
    places = [top, top / "one", top / "other"]
    for place in places:
        place.mkdir()
    try:
        yield top
    finally:
        for place in reversed(places):
            place.rmdir()


def test_the_command_can_t_leave_its_cgroup_for_another_that_it_may_write_to(laptop: Laptop, delegated: Path) -> None:
    move = f"echo $$ > {delegated}/other/cgroup.procs"
    enter = ["sh", "-c", f'echo $$ > {delegated}/one/cgroup.procs; exec "$@"', "sh"]
    done = laptop.world.run([*enter, *laptop.command("", command=["sh", "-c", move])])
    assert "Read-only file system" in done.stderr
