"""An engine that dies again and again: closed, said why, and never given up."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from dnsfw.restarts import Pace
from tests.e2e.guards import up

pytestmark = pytest.mark.kernel

POLICY = f"{atlas.ALLOWED_NAME}\n{atlas.ALLOWED.v4}:{atlas.ECHO_PORT}\n"


def hear(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def kill_engines(guard: subprocess.Popen[str], count: int) -> None:
    """One after the other, each as soon as there is one."""
    children, dead = Path(f"/proc/{guard.pid}/task/{guard.pid}/children"), ""
    deadline = time.monotonic() + 15
    for _ in range(count):
        while not (found := [pid for pid in children.read_text().split() if pid != dead]):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        (dead,) = found
        handle = os.pidfd_open(int(dead))
        os.kill(int(dead), signal.SIGKILL)
        assert select.select([handle], [], [], 5)[0]
        os.close(handle)


def connects(host: Playground, address: str, port: int, patience: float = 0.3) -> bool:
    script = f"import socket; socket.create_connection(({address!r}, {port}), {patience})"
    return host.run(["python3", "-c", script]).returncode == 0


def test_repeated_deaths_are_a_failure_that_is_closed_told_and_not_given_up(host: Playground, tmp_path: Path) -> None:
    with up(host, tmp_path, policy=POLICY) as guard:
        kill_engines(guard, Pace().many)
        asked = host.dnsfw("status", f"up-{host.run(['stat', '-Lc', '%i', '/proc/self/ns/net']).stdout.strip()}")
        deadline = time.monotonic() + 5
        while "has failed" not in (status := host.run(asked)).stderr:
            assert time.monotonic() < deadline, status
        assert status.returncode == 4
        assert "died 5 times, the last one of signal 9 (SIGKILL)" in status.stderr
        assert "nothing new leaves" in status.stderr
        assert not connects(host, atlas.ALLOWED.v4, atlas.ECHO_PORT)
        while not connects(host, atlas.ALLOWED.v4, atlas.ECHO_PORT, 2.0):
            assert time.monotonic() < deadline + 5
        status = host.run(asked)
        assert status.returncode == 0, status.stderr
        assert "was down    5 times" in status.stdout


def test_in_audit_mode_a_dead_engine_stands_in_nobodys_way(host: Playground, tmp_path: Path) -> None:
    with up(host, tmp_path, "--audit", policy=POLICY) as guard:
        kill_engines(guard, 4)  # so that the next pause is long
        said = hear(guard.stderr)
        while "died 4 times" not in said:
            said = hear(guard.stderr)
        assert "nothing is judged" in said
        children = Path(f"/proc/{guard.pid}/task/{guard.pid}/children")
        assert host.run(["getent", "ahosts", atlas.EVIL_ZONE]).returncode == 0
        assert connects(host, atlas.EVIL.v4, 4444)
        assert not children.read_text().split()  # or nothing was shown
