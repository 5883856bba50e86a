"""What a guard says of itself: what it denied, whether it was ever down, and that nobody else can have said it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import Inside, Laptop

pytestmark = pytest.mark.kernel

SPOKEN = "a line of text, which names no host\n"
type Done = subprocess.CompletedProcess[str]

POLICY = f"{atlas.ALLOWED_NAME}:{atlas.ECHO_PORT}\n"


def ask(world: Playground, *arguments: str, of: Inside | None = None, said: str | None = None) -> Done:
    """`dnsfw report`, in the guard's own /run if it is one's that is to be asked."""
    there = ["nsenter", "--target", str(of.pid), "--mount"] if of else []
    command = [*there, *world.dnsfw("report", *arguments)]
    return subprocess.run(command, input=said, capture_output=True, text=True, timeout=20, check=False)


def talk(inside: Inside) -> None:
    """One denial, then one connection that is allowed, by the engine of the day."""
    assert "not known" in inside.resolve(atlas.EVIL_ZONE)
    assert inside.resolve(atlas.ALLOWED_NAME)
    assert inside.tcp(atlas.ALLOWED.v4, atlas.ECHO_PORT, SPOKEN)["reply"] == SPOKEN


def test_it_is_signed_by_one_key_across_a_crash_which_it_names(world: Playground, tmp_path: Path) -> None:
    with Laptop(world, tmp_path).agent(POLICY, mounts="") as inside:
        first = json.loads(ask(world, "--statement", of=inside).stdout)
        engine = os.pidfd_open(inside.engine)
        signal.pidfd_send_signal(engine, signal.SIGKILL)
        os.close(engine)
        assert inside.resolve(atlas.ALLOWED_NAME)  # waits for the next one
        talk(inside)
        statement = ask(world, "--statement", of=inside).stdout
        text = ask(world, of=inside).stdout
    report = json.loads(json.loads(statement)["report"])
    assert [gap["reason"] for gap in report["gaps"]] == ["signal 9 (SIGKILL)"]
    assert report["gaps"][0]["closed"]
    assert 0 < report["gaps"][0]["seconds"] < 10
    assert [row["remedy"] for row in report["denials"]] == [atlas.EVIL_ZONE]
    assert report["reached"] == [{"host": atlas.ALLOWED_NAME, "count": 1}], str(report)
    assert f"✓ {atlas.ALLOWED_NAME}: 1 connection" in text
    believed = ask(world, "--verify", first["key"], said=statement)
    assert (believed.returncode, believed.stdout.splitlines()[0]) == (0, "signed by that key:")


def test_another_key_or_no_key_vouches_for_nothing(world: Playground, tmp_path: Path) -> None:
    with Laptop(world, tmp_path).agent(POLICY, mounts="") as inside:
        statement = ask(world, "--statement", of=inside).stdout
    stranger = base64.b64encode(bytes(32)).decode()
    assert ask(world, "--verify", stranger, said=statement).returncode == 1
    bad = ask(world, "--verify", "no key", said=statement)
    assert (bad.returncode, "is no key" in bad.stderr) == (2, True)
