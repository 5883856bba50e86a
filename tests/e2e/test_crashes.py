"""SIGKILL of a guard's processes in turn, under traffic: nothing denied leaves, nothing allowed breaks.

Six rounds; DNSFW_CRASHES=50 makes them more. What a proxy's death means for its own clients is in
test_run_proxy_life.py.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import IO

import pytest

from dnsfw.place import engine_user, proxy_user
from dnsfw.playground import atlas
from dnsfw.playground.world import Playground, Setting
from tests.e2e.traffic import AGAIN, KNOCK, SIEGE, STEADY

pytestmark = pytest.mark.kernel

ROUNDS = int(os.environ.get("DNSFW_CRASHES", "6"))
INSPECTED_PORT = 8443  # where that host's neighbour would hear what got through
POLICY = f"""\
{atlas.ALLOWED_NAME}:{atlas.ECHO_PORT}
{atlas.ALLOWED.v4}:{atlas.ECHO_PORT}
https://{atlas.SHARED_NAME}:{INSPECTED_PORT}/open/*
"""
TOKEN = "c0ffee15"
BACK_WITHIN = 30.0  # seconds, to the next new connection on a busy machine; bench/daemon.py has the figure
THERE_WITHIN = 10.0  # seconds, for a process that is to be killed
EVIL = [address for place in atlas.EVIL_PLACES for address in place.addresses]
CLOSED = {*EVIL, *atlas.SHARED.addresses}


class Host:
    """A laptop that is guarded, or was."""

    def __init__(self, laptop: Playground, policy: Path) -> None:
        self.laptop = laptop
        self._command = laptop.dnsfw("up", "--policy", str(policy))
        self.guard = self.up()

    def up(self) -> subprocess.Popen[str]:
        self.guard = self.laptop.popen(self._command, stderr=subprocess.PIPE, text=True)
        said = [""]
        while "guarding this host" not in said[-1]:
            said.append(hear(self.guard.stderr))
            assert said[-1], said
        return self.guard

    def kill_the_engine(self) -> None:
        kill(child(self.guard.pid, engine_user().uid))

    def kill_the_keeper(self) -> None:
        """And its proxy with it."""
        kill(child(self.guard.pid, proxy_user().uid))

    def kill_the_proxy(self) -> None:
        kill(child(child(self.guard.pid, proxy_user().uid), proxy_user().uid))

    def kill_the_supervisor(self) -> None:
        """And an administrator's next `up` takes over."""
        kill(self.guard.pid)
        self.forget_it()
        self.up()

    def forget_it(self) -> None:
        self.guard.wait(5)
        if self.guard.stderr is not None:
            self.guard.stderr.close()


def child(parent: int, uid: int) -> int:
    """That user's, waiting for one that lives. Raises AssertionError."""
    deadline = time.monotonic() + THERE_WITHIN
    while time.monotonic() < deadline:
        for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):  # buried meanwhile
                status = Path(f"/proc/{pid}/status").read_text()
                if f"\nUid:\t{uid}\t" in status and "\nState:\tZ" not in status:
                    return int(pid)
        time.sleep(0.01)
    raise AssertionError(f"process {parent} has no child of user {uid}")


def kill(pid: int) -> None:
    """To its very end."""
    handle = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([handle], [], [], 5)[0]
    os.close(handle)


def hear(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    policy = tmp_path / "policy"
    policy.write_text(POLICY)
    with Playground(Setting()) as laptop:
        host = Host(laptop, policy)
        try:
            yield host
        finally:
            host.guard.send_signal(signal.SIGINT)
            host.forget_it()
            laptop.run(laptop.dnsfw("down"))


class Traffic:
    """A program of `traffic` on the host, ended when it is told."""

    def __init__(self, host: Host, text: str, *arguments: object) -> None:
        command = [sys.executable, "-c", text, *map(str, arguments)]
        pipe = subprocess.PIPE
        self.process = host.laptop.popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        assert hear(self.process.stdout) == "begun"

    def ask(self) -> str:
        print(file=self.process.stdin, flush=True)
        return hear(self.process.stdout)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.timeout(60 + 5 * ROUNDS)
def test_nothing_denied_leaves_and_nothing_allowed_breaks(host: Host) -> None:
    with ExitStack() as stack:
        traffic = {
            "siege": Traffic(host, SIEGE, f"{TOKEN}.{atlas.EVIL_ZONE}", *EVIL),
            "knock": Traffic(host, KNOCK, atlas.SHARED_NAME, INSPECTED_PORT),
            "steady": Traffic(host, STEADY, atlas.ALLOWED.v4, atlas.ECHO_PORT),
            "again": Traffic(host, AGAIN, atlas.ALLOWED_NAME, atlas.ECHO_PORT),
        }
        for each in traffic.values():
            stack.callback(each.close)
        deaths = [
            host.kill_the_engine,
            host.kill_the_proxy,
            host.kill_the_engine,
            host.kill_the_keeper,
            host.kill_the_supervisor,
        ]
        pauses = []
        for die in islice(cycle(deaths), ROUNDS):
            die()
            pauses.append(float(traffic["again"].ask()))
        assert int(traffic["steady"].ask()) > ROUNDS
        assert int(traffic["siege"].ask()) > 10 * ROUNDS
        assert int(traffic["knock"].ask()) > 0  # or no proxy was ever there
        arrived = host.laptop.arrivals()
        assert not [each for each in arrived if each.destination[0] in CLOSED]
        assert not [each for each in arrived if each.carries(TOKEN.encode().hex())]
        assert [each for each in arrived if each.destination[0] == atlas.ALLOWED.v4]  # or nobody would have noticed
        assert max(pauses) < BACK_WITHIN, pauses


def test_an_address_stays_open_under_the_name_that_it_was_resolved_for(host: Host) -> None:
    """Nobody asks again: IPv6 is allowed by the name alone."""
    connect = f"import socket; socket.create_connection(({atlas.ALLOWED.v6!r}, {atlas.ECHO_PORT}), 5).close()"
    assert host.laptop.run([sys.executable, "-c", connect]).returncode != 0
    assert host.laptop.run(["getent", "ahosts", atlas.ALLOWED_NAME]).returncode == 0
    assert host.laptop.run([sys.executable, "-c", connect]).returncode == 0
    host.kill_the_engine()
    assert host.laptop.run([sys.executable, "-c", connect]).returncode == 0
