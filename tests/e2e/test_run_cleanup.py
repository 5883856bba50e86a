"""Nothing remains on the host, whatever ended a run; and two runs don't disturb each other."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import Inside, Laptop, ended, question

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lasting")]  # which has to be old by the time it is asked
pytest_plugins = ["tests.e2e.lasting"]

POLICY = f"{atlas.ALLOWED.v4}:{atlas.ECHO_PORT}\n[{atlas.ALLOWED.v6}]:{atlas.ECHO_PORT}\n"
# Everything of the host's that a run changes or makes, in the laptop's network namespace and its cgroups.
LOOK = """
nft list ruleset
ip -oneline address | awk '{ print $2, $4 }'
ip route show table all | sed 's/linkdown//'; ip -6 route show table all | sed 's/linkdown//' | grep -v -e fe80 -e ff00
for s in ipv4/ip_forward ipv6/conf/all/forwarding ipv6/conf/eth0/force_forwarding ipv6/conf/eth0/accept_ra; do
  echo $s $(cat /proc/sys/net/$s 2>/dev/null); done
ls -A /run/dnsfw 2>/dev/null || true
grep -v -e ' /run' /proc/self/mountinfo | cut -d' ' -f5-
"""


class Host:
    """A laptop with a /run that no other test sees, kept while this lives."""

    def __init__(self, laptop: Laptop, holder: subprocess.Popen[bytes]) -> None:
        self.laptop = laptop
        self.prefix = ["nsenter", "-t", str(holder.pid), "-m"]
        for sysctl in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            laptop.world.run(["sh", "-c", f"echo 0 > /proc/sys/net/{sysctl}"])

    def look(self) -> set[str]:
        """Link-local addresses left out: the kernel makes those in its own time."""
        shown = self.laptop.world.run([*self.prefix, "sh", "-c", LOOK]).stdout.splitlines()
        return {line for line in shown if "fe80:" not in line and "ff00:" not in line}

    @contextmanager
    def agent(self, *options: str) -> Iterator[Inside]:
        with self.laptop.agent(POLICY, *options, prefix=self.prefix) as inside:
            yield inside

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.laptop.world.run([*self.prefix, *self.laptop.command(POLICY, command=command)])


@pytest.fixture
def host(world: Playground, tmp_path: Path) -> Iterator[Host]:
    script = "mount -t tmpfs none /run && echo made && exec cat"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with world.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"made\n"
        yield Host(Laptop(world, tmp_path), holder)
        holder.communicate()


def cgroup_of(pid: int) -> Path:
    """The cgroup2 directory of a process."""
    root = next(line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup2 " in line)
    path = next(line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
    return Path(root) / path.removeprefix("0::/")


def wait_for(pidfd: int) -> None:
    assert select.select([pidfd], [], [], 10)[0], "a process is still there"
    os.close(pidfd)


def works(inside: Inside) -> bool:
    answers = [inside.tcp(address, atlas.ECHO_PORT, "hello") for address in atlas.ALLOWED.addresses]
    return [answer["reply"] for answer in answers] == ["hello", "hello"]


def test_a_run_shows_on_the_host_while_it_lives(host: Host) -> None:
    """Or the tests below would prove nothing."""
    before = host.look()
    with host.agent() as inside:
        assert works(inside)
        during = host.look()
    changed = during - before
    assert "ipv4/ip_forward 1" in changed
    assert {"ipv6/conf/eth0/force_forwarding 1", "ipv6/conf/all/forwarding 1"} & changed
    assert any(line.startswith("table inet dnsfw-") for line in changed)
    assert any(line.startswith("dnsfw-") for line in changed)  # the record
    assert host.look() == before


@pytest.mark.parametrize(
    ("ending", "status"),
    [("true", 0), ("kill -KILL $$", 137), ("exit 3", 3)],
    ids=["success", "killed", "failure"],
)
def test_nothing_is_left_after_a_command_that_ended(host: Host, ending: str, status: int) -> None:
    before = host.look()
    assert host.run("sh", "-c", ending).returncode == status
    assert host.look() == before


def test_a_daemon_left_behind_is_killed(host: Host) -> None:
    """Twice forked, in a session of its own, deaf to signals: its end of a pipe closes all the same."""
    before = host.look()
    daemon = """trap '' HUP TERM INT; setsid sh -c 'echo up; exec sleep 600' & read line < ready"""
    script = f"mkfifo ready; {daemon.replace('echo up', 'echo up > ready')}"
    where = ["env", "-C", str(host.laptop.directory)]
    command = [*host.prefix, *where, *host.laptop.command(POLICY, "-q", command=["sh", "-c", script])]
    with ended(host.laptop.world.popen(command, stdout=subprocess.PIPE)) as process:
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 5)[0]
        assert process.stdout.read() == b""  # to the end: nobody holds the other end any more
    assert host.look() == before


def test_sigkill_of_the_supervisor_leaves_nothing_alive_and_the_next_start_sweeps(host: Host) -> None:
    before = host.look()
    with host.agent() as inside:
        assert works(inside)
        engine, init = inside.children()
        cgroup = cgroup_of(init)
        alive = [os.pidfd_open(pid) for pid in (engine, init, *map(int, (cgroup / "cgroup.procs").read_text().split()))]
        os.kill(inside.pid, signal.SIGKILL)
        for pidfd in alive:
            wait_for(pidfd)
        assert inside.process.wait(10) == -signal.SIGKILL
    assert cgroup.is_dir()  # all that a SIGKILL leaves: an empty cgroup, a record, the sysctls in it
    assert host.run("true").returncode == 0
    assert not cgroup.exists()
    assert host.look() == before


def test_a_dead_engine_closes_the_network_until_the_next_one_is_there(host: Host) -> None:
    before = host.look()
    with host.agent() as inside:
        assert inside.tcp(atlas.ALLOWED.v4, atlas.ECHO_PORT, "hello", keep="up")["reply"] == "hello"
        engine = inside.engine
        dead = os.pidfd_open(engine)
        os.kill(inside.pid, signal.SIGSTOP)  # so that nobody starts the next one
        os.kill(engine, signal.SIGKILL)
        wait_for(dead)
        for address in atlas.ALLOWED.addresses:
            assert inside.tcp(address, atlas.ECHO_PORT, patience=0.3)["outcome"] != "open"
        assert inside.dns(atlas.UPSTREAM.v4, "udp", question("allowed.example"), patience=0.3)["outcome"] != "answered"
        os.kill(inside.pid, signal.SIGCONT)
        assert works(inside)
        assert inside.again("up", "still here") == "still here"
        status, said = inside.leave()
    assert status == 0
    assert said.startswith("dnsfw: Its engine died once, the last one of signal 9 (SIGKILL); ")
    assert "Until then nothing new leaves.\n" in said
    assert host.look() == before


def test_sigkill_of_supervisor_and_engine_at_once(host: Host) -> None:
    before = host.look()
    with host.agent() as inside:
        assert works(inside)
        engine, init = inside.children()
        alive = [os.pidfd_open(pid) for pid in (engine, init)]
        os.kill(inside.pid, signal.SIGSTOP)
        os.kill(engine, signal.SIGKILL)
        os.kill(inside.pid, signal.SIGKILL)
        for pidfd in alive:
            wait_for(pidfd)
    assert host.run("true").returncode == 0
    assert host.look() == before


def test_sigterm_goes_to_the_command(host: Host) -> None:
    before = host.look()
    script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    command = [*host.prefix, *host.laptop.command(POLICY, "-q", command=["sh", "-c", script])]
    with ended(host.laptop.world.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (5, b"caught\n", b"")
    assert host.look() == before


def test_two_runs_do_not_disturb_each_other(host: Host) -> None:
    before = host.look()
    with host.agent() as first:
        assert works(first)
        with host.agent() as second:
            assert works(second)
            first.leave()
            assert works(second)  # the first one's end took nothing of the second's away
            assert "ipv4/ip_forward 1" in host.look()
            with host.agent() as third:
                assert works(third)
                second.leave()
                assert works(third)
    assert host.look() == before


def test_a_run_that_died_does_not_take_from_one_that_lives(host: Host) -> None:
    """The sweep leaves alone what a living run still needs, and the last one restores it."""
    before = host.look()
    with host.agent() as dies, host.agent() as lives:
        os.kill(dies.pid, signal.SIGKILL)
        dies.process.wait(10)
        assert host.run("true").returncode == 0
        assert works(lives)
    assert host.look() == before


@pytest.mark.parametrize("setting", ["loopback_world", "routeless_world"])
def test_where_the_host_is_set_up_otherwise(setting: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A resolver on the host's loopback; no default route."""
    laptop = Laptop(request.getfixturevalue(setting), tmp_path)
    fetch = ["curl", "-sS", "-m", "5", "--cacert", str(laptop.world.authority), f"https://{atlas.ALLOWED_NAME}/"]
    policy = f"{atlas.ALLOWED_NAME}\n"
    script = f"{' '.join(fetch)} && {' '.join(fetch)} -6 && {' '.join(fetch)} -4; getent hosts {atlas.EVIL_ZONE}"
    done = laptop.run(policy, ["sh", "-c", script])
    assert (done.stdout, done.returncode) == (f"hello from {atlas.ALLOWED_NAME}\n" * 3, 2), done.stderr
