"""What /proc says of a process: facts of one moment, or said to be incomplete."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copy2

import pytest

from bpf.process import Process, ancestors, read_process, read_stat
from tests.bpf.conftest import cgroup2_mount, own_cgroup

BASH = "/bin/bash"
WAIT = "read -r"


@contextmanager
def running(command: Sequence[str | bytes]) -> Iterator[int]:
    """A process that waits; it has said so, and is what it is by then."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]  # of mixed text and bytes
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def seen(pid: int) -> Process:
    process = read_process(pid)
    assert process is not None
    return process


def test_ourselves() -> None:
    us = seen(os.getpid())
    assert (us.exe, us.uid, us.pid_depth, us.complete) == (os.path.realpath(sys.executable), os.getuid(), 0, True)
    assert us.stat.parent == os.getppid()
    assert us.namespace("mnt") == Path("/proc/self/ns/mnt").stat().st_ino
    assert us.cgroup("") == next(
        line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")
    )
    assert [each.pid for each in ancestors(os.getpid())][:2] == [os.getpid(), os.getppid()]


# The program's file, and its arguments behind `bash -c WAIT`.
ODD: dict[str, tuple[str, list[str | bytes]]] = {
    "brackets in its name": (") S 1 (", []),
    "no UTF-8": ("here", [b"\xff\n"]),
    "empty arguments": ("here", ["", "", "x"]),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_processes(tmp_path: Path, case: str) -> None:
    name, arguments = ODD[case]
    program = copy2(BASH, tmp_path / name)
    with running([str(program), "-c", f"echo; {WAIT}", "bash", *arguments]) as pid:
        process = seen(pid)
    said = [argument.encode() if isinstance(argument, str) else argument for argument in arguments]
    assert (process.exe, process.stat.comm, process.stat.parent) == (str(program), name, os.getpid())
    assert process.argv[4:] == tuple(argument.decode(errors="backslashreplace") for argument in said)
    assert process.complete


@pytest.mark.kernel("root", "cgroup2")
def test_a_cgroup_s_name_is_no_line_of_its_own() -> None:
    """Whoever may make cgroups may call them anything but for a line feed."""
    with own_cgroup("a\r0::"), own_cgroup("a\r0::/b") as cgroup, running([BASH, "-c", f"echo; {WAIT}"]) as pid:
        (cgroup / "cgroup.procs").write_text(str(pid))
        assert seen(pid).cgroup("") == f"/{cgroup.relative_to(cgroup2_mount())}"


def test_more_arguments_than_are_looked_at() -> None:
    with running([BASH, "-c", f"echo; {WAIT}", "bash", "x" * 2000]) as pid:
        process = seen(pid)
    assert process.exe == os.path.realpath(BASH)
    assert not process.complete


def test_a_deleted_program_is_told_from_the_one_in_its_place(tmp_path: Path) -> None:
    program = Path(copy2(BASH, tmp_path / "here"))
    with running([str(program), "-c", f"echo; {WAIT}"]) as pid:
        program.unlink()
        copy2(BASH, program)
        assert seen(pid).exe == f"{program} (deleted)"


def test_a_zombie_is_nothing_but_a_number() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        process = seen(child)
    finally:
        os.waitpid(child, 0)
    assert (process.exe, process.argv, process.complete) == ("", (), False)
    assert read_process(child) is None
    assert read_stat(child) is None


def test_a_kernel_thread_runs_nothing() -> None:
    threads = (read_stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit())
    found = next((stat for stat in threads if stat and stat.comm == "kthreadd"), None)
    if found is None:
        pytest.skip("no kernel thread is to be seen from this PID namespace")
    process = seen(found.pid)
    assert (process.exe, process.argv, process.complete) == ("", (), False)


def test_facts_of_one_moment_or_none(tmp_path: Path) -> None:
    """One process is two programs in turn, as fast as it can: never one's path with the other's arguments."""
    script = tmp_path / "script"
    programs = [copy2(BASH, tmp_path / name) for name in ("one", "other")]
    script.write_text('[ "$2" ] && echo; exec "${BASH%/*}/$1" "${0}" "${BASH##*/}"\n')
    whole = 0
    with running([str(programs[0]), str(script), "other", "first"]) as pid:
        for _ in range(400):
            process = read_process(pid)
            if process is None or not process.complete:
                continue
            whole += 1
            assert process.exe.endswith(("/one", "/other"))
            assert process.argv[0] == process.exe
            assert process.exe.rpartition("/")[2] != process.argv[2]
        os.kill(pid, signal.SIGKILL)
    assert whole  # not that there was nothing to be wrong about
