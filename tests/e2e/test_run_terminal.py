"""The terminal is the command's own: signals, job control, size, and its closing."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from dnsfw.playground.world import Playground
from tests.e2e.inside import PYTHON, Laptop, ended, private

pytestmark = pytest.mark.kernel

READY = "echo ready $(tail -n 1 /proc/self/cgroup) ."
CTRL_C, CTRL_D, CTRL_Z = b"\x03", b"\x04", b"\x1a"
SHELL = ["env", "PS1=$ ", "bash", "--norc", "--noprofile", "-i"]


class Terminal:
    """A terminal and the session on it."""

    def __init__(self, world: Playground, command: Sequence[str]) -> None:
        self._ours, theirs = pty.openpty()
        session = ["setsid", "--ctty", *command]  # execs: this process leads no group
        self.process = world.popen(session, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.shown = b""

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def expect(self, text: bytes, patience: float = 15.0) -> bytes:
        """Wait until `text` is shown; what came before it. What was shown is used up."""
        deadline = time.monotonic() + patience
        while text not in self.shown:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} was not shown, but {self.shown!r}"
            try:
                self.shown += os.read(self._ours, 1 << 16)
            except OSError as error:  # EIO: everybody has closed the other end
                raise AssertionError(f"{text!r} was not shown, but {self.shown!r}") from error
        before, _, self.shown = self.shown.partition(text)
        return before

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def end(self) -> int:
        """The session leader's exit status."""
        deadline = time.monotonic() + 15
        while select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                self.shown += os.read(self._ours, 1 << 16)
            except OSError:
                break
        return self.process.wait(15)

    def close(self) -> None:
        """Hang up."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1


def cgroup(shown: Terminal) -> Path:
    """Where the command is that said READY."""
    shown.expect(b"ready 0::/")
    root = next(line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup2 " in line)
    found = Path(root, shown.expect(b" .\r\n").decode())
    assert found.is_dir()
    return found


@pytest.fixture
def laptop(world: Playground, tmp_path: Path) -> Laptop:
    return Laptop(world, tmp_path)


@contextmanager
def terminal(laptop: Laptop, command: Sequence[str]) -> Iterator[Terminal]:
    opened = Terminal(laptop.world, command)
    try:
        yield opened
    finally:
        opened.close()
        try:
            opened.process.wait(10)
        except subprocess.TimeoutExpired:
            opened.process.kill()
            opened.process.wait()


def test_ctrl_c_ends_the_command_and_cleans_up(laptop: Laptop) -> None:
    with terminal(laptop, laptop.command("", command=["sh", "-c", f"{READY}; exec sleep 600"])) as shown:
        mine = cgroup(shown)
        shown.type(CTRL_C)
        shown.expect(b"dnsfw: nothing denied, 0 allowed")
        assert shown.end() == 130
    assert not mine.exists()


COUNT = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
for _ in range(10):
    print("waiting", flush=True)
    signal.sigwait([signal.SIGINT])
    print("again" if signal.sigtimedwait([signal.SIGINT], 0.05) else "once", flush=True)
"""


def test_a_command_may_take_ctrl_c_for_its_own(laptop: Laptop) -> None:
    """What the terminal has told the command dnsfw doesn't tell again. Ten times: two at once would look like one."""
    with terminal(laptop, laptop.command("", "-q", command=[PYTHON, "-c", COUNT])) as shown:
        for _ in range(10):
            shown.expect(b"waiting\r\n")
            shown.type(CTRL_C)
            assert shown.expect(b"once\r\n") == b"^C"
        assert shown.end() == 0


REPEAT = """
import os, signal, sys
signal.signal(signal.SIGCONT, lambda *_: os.write(1, b"resumed\\n"))  # maybe twice, one inside the other
print("up", flush=True)
for line in sys.stdin:
    os.write(1, b"heard " + line.encode())  # whole: a second "resumed" may come at any moment
"""


def test_ctrl_z_stops_the_job_and_fg_goes_on(laptop: Laptop) -> None:
    """The whole of it under an interactive shell, as people use it."""
    script = laptop.directory / "guarded"
    guarded = laptop.command("", "-q", command=[PYTHON, "-c", REPEAT])
    script.write_text(f"#!/bin/sh\nexec {shlex.join(guarded)}\n")
    script.chmod(0o755)
    with terminal(laptop, SHELL) as shown:
        shown.expect(b"$ ")
        shown.type(f"{script}\n".encode())
        shown.expect(b"up\r\n")
        shown.type(b"one\n")
        shown.expect(b"heard one\r\n")
        shown.type(CTRL_Z)
        shown.expect(b"Stopped")
        shown.expect(b"$ ")
        shown.type(b"jobs\n")
        shown.expect(b"Stopped")
        shown.expect(b"$ ")
        shown.type(b"fg\n")
        shown.expect(b"resumed\r\n")  # it has the terminal by now
        shown.type(b"two\n")
        shown.expect(b"heard two\r\n")
        shown.type(CTRL_D)
        shown.expect(b"$ ")
        shown.type(b"echo status $?\n")
        shown.expect(b"status 0\r\n")
        shown.type(b"exit\n")
        assert shown.end() == 0


def test_the_window_size_is_the_commands(laptop: Laptop) -> None:
    script = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.02; done"
    guarded = shlex.join(laptop.command("", "-q", command=["sh", "-c", script]))
    with terminal(laptop, ["sh", "-c", f"stty rows 30 cols 90; exec {guarded}"]) as shown:
        shown.expect(b"30 90\r\n")
        shown.resize(45, 132)
        shown.expect(b"45 132\r\n")
        assert shown.end() == 0


def test_a_shell_inside_has_job_control(laptop: Laptop) -> None:
    with terminal(laptop, laptop.command("", "-q", command=SHELL)) as shown:
        assert b"no job control" not in shown.expect(b"$ ")
        shown.type(b"sh -c 'echo u''p; exec sleep 600'\n")
        shown.expect(b"up\r\n")  # it has the terminal by now
        shown.type(CTRL_Z)
        shown.expect(b"Stopped")
        shown.type(b"bg; jobs\n")
        shown.expect(b"Running")
        shown.type(b"kill %1; wait; sh -c 'echo u''p; exec sleep 600'\n")
        shown.expect(b"up\r\n")
        shown.type(CTRL_C)
        shown.expect(b"$ ")
        shown.type(b"exit 4\n")
        assert shown.end() == 4


def test_closing_the_terminal_ends_everything(laptop: Laptop) -> None:
    """We lead the session here, as under `ssh -t host dnsfw run …`: the kernel tells nobody else."""
    with terminal(laptop, laptop.command("", command=["sh", "-c", f"{READY}; exec sleep 600"])) as shown:
        mine = cgroup(shown)
        shown.close()
        assert shown.process.wait(15) == 128 + signal.SIGHUP
    assert not mine.exists()


def test_closing_the_terminal_of_a_shell_ends_its_guarded_jobs(laptop: Laptop) -> None:
    script = laptop.directory / "guarded"
    guarded = laptop.command("", command=["sh", "-c", f"{READY}; sleep 600"])
    script.write_text(f"#!/bin/sh\nexec {shlex.join(guarded)}\n")
    script.chmod(0o755)
    with terminal(laptop, SHELL) as shown:
        shown.expect(b"$ ")
        shown.type(f"{script}\n".encode())
        with (cgroup(shown) / "cgroup.events").open() as populated:
            shown.close()
            poller = select.poll()
            poller.register(populated, select.POLLPRI)
            while "populated 1" in populated.read():
                assert poller.poll(15_000)
                populated.seek(0)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_during_set_up(laptop: Laptop, number: signal.Signals, status: int) -> None:
    """While the engine waits for its policy, so that nothing runs yet. /run is the test's own: its state shows."""
    state, policy = laptop.directory / "run", laptop.directory / "policy"
    state.mkdir()
    os.mkfifo(policy)
    run = laptop.world.dnsfw("run", "--policy", str(policy), "--", "echo", "started")
    command, streams = private(run, f"mount --bind {state} /run"), subprocess.PIPE
    with ended(laptop.world.popen(command, stdout=streams, stderr=streams, start_new_session=True)) as process:
        with writing_end(policy):
            assert list((state / "dnsfw").iterdir())
            process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (status, b""), err
    assert b"Traceback" not in err
    assert not list(state.iterdir())


def writing_end(pipe: Path) -> BinaryIO:
    """Once somebody reads it, who waits until this is closed."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with suppress(OSError):  # ENXIO: nobody yet
            return os.fdopen(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK), "wb")
        time.sleep(0.005)
    raise AssertionError("nobody reads it")
