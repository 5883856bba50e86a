"""Which programs root runs is not for the caller's PATH to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnsfw.playground.world import Playground

pytestmark = pytest.mark.kernel


def test_roots_programs_are_not_found_by_the_callers_path(world: Playground, tmp_path: Path) -> None:
    """A folder that a user can write comes first in PATH, with an `ip` and an `iptables-nft` of the user's own."""
    for name in ("ip", "iptables-nft", "iptables-nft-save", "iptables-nft-restore", "ip6tables-nft-save", "nft"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "$0" >> {tmp_path}/called\nexit 1\n')
        program.chmod(0o755)
    path = f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin"
    done = world.run(["env", f"PATH={path}", *world.dnsfw("run", "-q", "--", "sh", "-c", 'echo "$PATH"')])
    assert done.stdout == f"{path}\n", done.stderr
    assert not (tmp_path / "called").exists()
