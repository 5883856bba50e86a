"""What a guard says waits for nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MANY = "from dnsfw.terminal import complain, say; [word('x' * 5_000) for word in (complain, say) for _ in range(200)]"


@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
def test_a_supervisor_is_not_held_up_by_who_does_not_read(read: bool) -> None:
    """Otherwise a full pipe would keep the next engine from being started."""
    ours, theirs = os.pipe()
    with subprocess.Popen([sys.executable, "-c", MANY], stderr=theirs, cwd=ROOT) as process:
        os.close(theirs)
        said = b""
        while read and (some := os.read(ours, 1 << 16)):
            said += some
        assert process.wait(20) == 0
    os.close(ours)
    assert said.count(b"dnsfw: x") > 0 or not read
