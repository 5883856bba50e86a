"""`dnsfw up` as its unit starts it: with the unit's capabilities, and a manager that listens."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from dnsfw.service import install

pytestmark = pytest.mark.kernel


def capabilities() -> list[str]:
    """As setpriv(1) is told them: all gone but the unit's. No memory that is written is executed (PR_SET_MDWE)."""
    unit = Path(install.__file__).with_name("dnsfw.service").read_text(encoding="utf-8")
    assert "MemoryDenyWriteExecute=yes" in unit
    deny = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    kept = re.findall(r"CAP_(\w+)", next(line for line in unit.splitlines() if line.startswith("CapabilityB")))
    bounds = ",".join(["-all", *(f"+{name.lower()}" for name in kept)])
    return ["/usr/bin/python3", "-c", deny, "setpriv", "--no-new-privs", "--bounding-set", bounds]


def until(manager: socket.socket, word: str) -> list[str]:
    """What the manager hears until that word. Raises TimeoutError."""
    said = [""]
    while word not in said[-1]:
        said.append(manager.recv(4096).decode())
    return said[1:]


def test_it_guards_with_the_units_capabilities_and_tells_its_manager(host: Playground, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.write_text(f"{atlas.ALLOWED_NAME}\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(15)
        manager.bind(str(tmp_path / "notify"))
        environ = ["env", f"NOTIFY_SOCKET={tmp_path / 'notify'}", "WATCHDOG_USEC=300000"]
        options = ["--policy", str(policy), "--journal", str(tmp_path / "journal")]
        command = [*environ, *capabilities(), *host.dnsfw("up", *options)]
        with host.popen(command, stderr=subprocess.PIPE, text=True) as guard:
            try:
                assert until(manager, "READY=1")[-1] == "READY=1\nSTATUS=enforcing"
                fetched = ["curl", "-sS", "--cacert", str(host.authority), f"https://{atlas.ALLOWED_NAME}/"]
                assert "hello" in host.run(fetched).stdout
                assert host.run(["curl", "-sS", f"https://{atlas.EVIL.v4}:8443/"]).returncode == 7
                for _ in range(3):
                    until(manager, "WATCHDOG=1")
                assert_silent_without_an_engine(guard.pid, manager)
            finally:
                guard.send_signal(signal.SIGINT)
            assert until(manager, "STOPPING=1")
        assert guard.returncode == 0


def assert_silent_without_an_engine(supervisor: int, manager: socket.socket) -> None:
    """The loop stands still: the manager must notice."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii").split()
    engine = next(int(child) for child in children if "NoNewPrivs:\t1" in Path(f"/proc/{child}/status").read_text())
    os.kill(engine, signal.SIGSTOP)
    manager.settimeout(0.4)
    try:
        with pytest.raises(TimeoutError):
            until(manager, "never")
    finally:
        os.kill(engine, signal.SIGCONT)
        manager.settimeout(15)
    until(manager, "WATCHDOG=1")
