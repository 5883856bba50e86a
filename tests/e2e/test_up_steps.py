"""`dnsfw up` started by a step of a job: what later steps may is told by `step=`, whatever they say of themselves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground

pytestmark = pytest.mark.kernel

POLICY = f"{atlas.ALLOWED.v4}:{atlas.ECHO_PORT} step=build\n!{atlas.ALLOWED.v4}:{atlas.DISCARD_PORT} step=build\n"
POLICY += f"{atlas.ALLOWED.v4}:{atlas.DISCARD_PORT}\n"
# Named as a runner's worker is; it starts the guard, and then one step after the other.
WORKER = """
import ctypes, json, subprocess, sys
ctypes.CDLL(None).prctl(15, b"Runner.Worker")
up, steps = map(json.loads, sys.argv[1:])
with subprocess.Popen(up, stderr=subprocess.PIPE, text=True) as guard:
    said = guard.stderr.readline()
    assert "guarding this host" in said, said + guard.stderr.read()
    for argv, environ in steps:
        print(subprocess.run(argv, env=environ, capture_output=True, text=True).stdout.strip(), flush=True)
    guard.terminate()
    guard.communicate()
"""
CONNECT = f"""
for port in {atlas.ECHO_PORT} {atlas.DISCARD_PORT}; do
  (exec 3<>/dev/tcp/{atlas.ALLOWED.v4}/$port) 2>/dev/null && echo $port
done; true
"""
BUILD, TEST = {"GITHUB_ACTION": "build"}, {"GITHUB_ACTION": "test"}
FORGED = "env GITHUB_ACTION=build bash -c"


def test_a_rule_about_a_step_holds_for_that_step(host: Playground, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.write_text(POLICY)
    steps = [
        (["/bin/bash", "-c", CONNECT], BUILD),
        (["/bin/bash", "-c", CONNECT], TEST),
        (["/bin/bash", "-c", f'{FORGED} "$0"', CONNECT], {**TEST, "PATH": "/usr/bin:/bin"}),
        (["/bin/bash", "-c", CONNECT], {}),
    ]
    command = [sys.executable, "-c", WORKER, json.dumps(host.dnsfw("up", "--policy", str(policy))), json.dumps(steps)]
    done = host.run(command, timeout=60)
    echo, discard = str(atlas.ECHO_PORT), str(atlas.DISCARD_PORT)
    # What isn't known to be in a step satisfies no rule that allows, and escapes none that denies.
    assert done.stdout.split("\n")[:4] == [echo, discard, discard, ""], done.stderr
