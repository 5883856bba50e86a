"""What can't be guarded is not started: one clear message with the remedy, 125 or 2, and nothing changed."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import Laptop, private

pytestmark = pytest.mark.kernel


@pytest.fixture
def laptop(world: Playground, tmp_path: Path) -> Laptop:
    return Laptop(world, tmp_path)


def refused(laptop: Laptop, command: Sequence[str], arrangements: str = "true") -> tuple[int, str]:
    """The exit status and the message of a start that must leave nothing: no file, no table, no interface, no cgroup.

    /run is the test's own; the command would have left a word on standard output.
    """
    state = laptop.directory / "run"
    state.mkdir(exist_ok=True)
    before = changes(laptop)
    done = laptop.world.run(private(command, f"mount --bind {state} /run; {arrangements}"))
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert changes(laptop) == before
    assert not (state / "dnsfw").exists()
    return done.returncode, done.stderr


def changes(laptop: Laptop) -> str:
    look = "nft list ruleset; ip -oneline link | cut -d: -f2; cat /proc/sys/net/ipv4/ip_forward"
    return laptop.world.run(["sh", "-c", look]).stdout


def start(laptop: Laptop, *options: str, policy: str = "") -> list[str]:
    return laptop.command(policy, *options, command=["echo", "started"])


def test_without_root(laptop: Laptop) -> None:
    """By this interpreter and these sources, shown where anybody may read them."""
    shown = {name: laptop.directory / name for name in ("python", "sources", "packages")}
    for folder in (laptop.directory, *laptop.directory.parents[:2], *shown.values()):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    real = (sys.base_prefix, Path(__file__).parents[2], Path(click.__file__).parents[1])
    binds = [f"mount --bind {one} {other}" for one, other in zip(real, shown.values(), strict=True)]
    interpreter = shown["python"] / Path(sys.executable).resolve().relative_to(sys.base_prefix)
    paths = [str(shown["sources"]), str(shown["packages"])]
    begin = f"import sys; sys.path[:0] = {paths}; sys.dont_write_bytecode = True; from dnsfw.cli import main; main()"
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
    libraries = f"LD_LIBRARY_PATH={shown['python']}/lib"  # for an interpreter built to share its own
    command = [*as_nobody, "env", libraries, str(interpreter), "-c", begin, "run", "--", "echo", "started"]
    status, said = refused(laptop, command, "; ".join(binds))
    assert status == 125
    assert said == (
        "dnsfw: dnsfw run needs root: it makes a network namespace and a packet filter.\n"
        "  Call it through sudo; the guarded command still runs as you: sudo dnsfw run …\n"
    )


def without_library(laptop: Laptop) -> str:
    """Shell commands: libnftables out of sight, and out of ldconfig(8)'s cache, as after its removal."""
    folder = laptop.directory
    name = ctypes.util.find_library("nftables")
    found = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    path = next(line.split()[-1] for line in found.splitlines() if line.split()[:1] == [name])
    return (
        f"touch {folder}/empty; mount --bind {folder}/empty $(readlink -f {path});"
        f" ldconfig -X -C {folder}/cache 2>/dev/null; mount --bind {folder}/cache /etc/ld.so.cache"
    )


def without_program(laptop: Laptop, name: str) -> str:
    """Shell commands: no file of that name can be executed."""
    found = shutil.which(name)
    assert found
    empty = laptop.directory / "empty"
    return f"touch {empty}; mount --bind {empty} $(readlink -f {found})"


def test_without_libnftables(laptop: Laptop) -> None:
    status, said = refused(laptop, start(laptop), without_library(laptop))
    assert (status, said) == (125, "dnsfw: The library libnftables is missing.\n  Install the package nftables.\n")


@pytest.mark.parametrize(("program", "package"), [("ip", "iproute2"), ("iptables-nft-restore", "iptables")])
def test_without_a_program(laptop: Laptop, program: str, package: str) -> None:
    status, said = refused(laptop, start(laptop), without_program(laptop, program))
    assert (status, said) == (125, f"dnsfw: The program {program} is missing.\n  Install the package {package}.\n")


def test_without_bcc(laptop: Laptop) -> None:
    status, said = refused(laptop, start(laptop), "mount -t tmpfs none /usr/lib/python3/dist-packages")
    assert status == 125
    assert said.startswith("dnsfw: bcc is missing")
    assert said.endswith("  Install python3-bpfcc.\n")


def test_without_cgroup2(laptop: Laptop) -> None:
    gone = "for m in $(awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts); do umount -l $m; done"
    status, said = refused(laptop, start(laptop), gone)
    assert status == 125
    assert said.startswith("dnsfw: This machine has no cgroup2 mount")
    assert said.endswith("  Mount one: mount -t cgroup2 none /sys/fs/cgroup\n")


def test_with_a_cgroup2_that_is_read_only(laptop: Laptop) -> None:
    """As in most containers."""
    sealed = "for m in $(awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts); do mount -o bind,remount,ro $m; done"
    status, said = refused(laptop, start(laptop), sealed)
    assert status == 125
    assert "Read-only file system" in said
    assert "cgroup2 must be writable" in said


def test_with_a_state_folder_that_cannot_be_made(laptop: Laptop) -> None:
    status, said = refused(laptop, start(laptop), "mount -o bind,remount,ro /run")
    assert (status, said) == (
        125,
        "dnsfw: /run/dnsfw can't be made: Read-only file system.\n  dnsfw keeps its state there.\n",
    )


def test_without_a_resolver(laptop: Laptop) -> None:
    status, said = refused(
        laptop, start(laptop), f"touch {laptop.directory}/none; mount --bind {laptop.directory}/none /etc/resolv.conf"
    )
    assert status == 125
    assert "/etc/resolv.conf" in said
    assert "--upstream ADDR" in said


@pytest.mark.parametrize(
    ("journal", "reason"),
    [
        ("no/such/folder/journal", "No such file or directory"),
        (".", "is a directory"),
    ],
)
def test_a_journal_that_cannot_be_written(laptop: Laptop, journal: str, reason: str) -> None:
    status, said = refused(laptop, start(laptop, "--journal", str(laptop.directory / journal)))
    assert status == 2
    assert reason in said
    assert journal.rstrip(".") in said


def test_a_journal_on_a_file_system_that_is_read_only(laptop: Laptop) -> None:
    folder = laptop.directory / "sealed"
    folder.mkdir()
    command = start(laptop, "--journal", str(folder / "journal"))
    status, said = refused(laptop, command, f"mount --bind {folder} {folder}; mount -o bind,remount,ro {folder}")
    assert status == 2
    problem = f"The journal {folder}/journal can't be written: Read-only file system."
    assert said == f"dnsfw: {problem}\n  Name another: --journal FILE\n"


def test_a_journal_pipe_without_reader(laptop: Laptop) -> None:
    os.mkfifo(laptop.directory / "pipe")
    status, said = refused(laptop, start(laptop, "--journal", str(laptop.directory / "pipe")))
    assert status == 2
    assert "No such device or address" in said
    assert "--journal FILE" in said


def test_a_policy_that_is_not_there(laptop: Laptop) -> None:
    command = laptop.world.dnsfw("run", "--policy", "/no/such/policy", "--", "echo", "started")
    status, said = refused(laptop, command)
    assert status == 2
    assert said == (
        "dnsfw: The policy /no/such/policy can't be read: No such file or directory.\n  Name another policy file.\n"
    )


def test_all_mistakes_of_a_policy_are_told_with_their_places(laptop: Laptop) -> None:
    text = "github.com\nexample..com\n\n999.1.1.1\nexample.com:99999\n/path\n"
    status, said = refused(laptop, start(laptop, policy=text))
    assert status == 2
    assert "has 4 mistakes:" in said
    for line, column_of in ((2, "example..com"), (4, "999.1.1.1"), (5, "example.com:99999"), (6, "/path")):
        assert f".policy:{line}:" in said
        assert f"    {column_of}\n" in said
    assert "Nothing was started. Mend the policy and try again." in said


@pytest.mark.parametrize("option", ["--audit", "--quiet"])
def test_an_invalid_policy_stops_every_mode(laptop: Laptop, option: str) -> None:
    assert refused(laptop, start(laptop, option, policy="not a rule\n"))[0] == 2


def test_a_policy_that_is_not_text(laptop: Laptop) -> None:
    policy = laptop.directory / "binary"
    policy.write_bytes(b"github.com\n\xff\xfe\x00\n")
    command = laptop.world.dnsfw("run", "--policy", str(policy), "--", "echo", "started")
    status, said = refused(laptop, command)
    assert status == 2
    assert "binary" in said


def test_policies_that_include_each_other(laptop: Laptop) -> None:
    (laptop.directory / "other").write_text("@include main\n")
    (laptop.directory / "main").write_text("@include other\n")
    command = laptop.world.dnsfw("run", "--policy", str(laptop.directory / "main"), "--", "echo", "started")
    status, said = refused(laptop, command)
    assert status == 2
    assert "1 mistake" in said
    assert "@include" in said


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--no-such-option"], "--no-such-option"),
        (["--upstream", "resolver.example"], "'resolver.example' is not an IP address"),
        (["--upstream", "192.0.2.1:99999"], "'99999' is not a port"),
    ],
    ids=["option", "name", "port"],
)
def test_a_mistake_in_the_call(laptop: Laptop, options: list[str], reason: str) -> None:
    status, said = refused(laptop, start(laptop, *options))
    assert status == 2
    assert reason in said
    assert said.startswith("Usage:")


def test_a_call_without_a_command(laptop: Laptop) -> None:
    status, said = refused(laptop, laptop.world.dnsfw("run"))
    assert status == 2
    assert "Missing argument 'COMMAND...'" in said


@pytest.mark.parametrize("variable", ["SUDO_UID=root", "SUDO_UID=-1", "SUDO_UID=4294967295", "SUDO_UID=99999999999"])
def test_a_caller_that_is_none(laptop: Laptop, variable: str) -> None:
    status, said = refused(laptop, ["env", variable, *start(laptop)])
    assert status == 125
    assert variable.partition("=")[2] in said
    assert "Call dnsfw through sudo, or as root." in said


def test_all_upstreams_dead_is_told_at_the_end(laptop: Laptop) -> None:
    script = f"getent hosts {atlas.ALLOWED_NAME}; exit 0"
    silent = laptop.run(atlas.ALLOWED_NAME, ["sh", "-c", script], "--upstream", atlas.LAPTOP.v4 + ":9")
    assert "DNS questions got no answer from 192.0.2.10:9; name another with --upstream" in silent.stderr
