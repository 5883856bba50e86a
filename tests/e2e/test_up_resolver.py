"""`dnsfw up --set-resolver`: resolv.conf names dnsfw as long as the guard is there, and is given back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground, Setting
from tests.e2e.guards import up

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def laptop() -> Iterator[Playground]:
    with Playground(Setting(stub_resolver=True)) as world:
        yield world


def resolv_conf(laptop: Playground) -> str:
    return laptop.run(["cat", "/etc/resolv.conf"]).stdout


def test_it_names_dnsfw_until_the_end_also_to_the_next_engine(laptop: Playground, tmp_path: Path) -> None:
    before = resolv_conf(laptop)
    with up(laptop, tmp_path, "--set-resolver", "--upstream", atlas.UPSTREAM.v4) as guard:
        assert resolv_conf(laptop) == "# Made by dnsfw.\nnameserver 127.0.0.1\n"
        assert laptop.run(["getent", "ahosts", atlas.ALLOWED_NAME]).returncode == 0
        engine = int(Path(f"/proc/{guard.pid}/task/{guard.pid}/children").read_text().split()[0])
        os.kill(engine, signal.SIGKILL)
        assert laptop.run(["getent", "ahosts", atlas.ALLOWED_NAME]).returncode == 0
        assert laptop.run(["getent", "ahosts", atlas.EVIL_ZONE]).returncode != 0
    assert resolv_conf(laptop) == before


def test_killed_it_leaves_that_to_down(laptop: Playground, tmp_path: Path) -> None:
    before = resolv_conf(laptop)
    with up(laptop, tmp_path, "--set-resolver", "--upstream", atlas.UPSTREAM.v4) as guard:
        guard.kill()
        guard.wait()
        assert resolv_conf(laptop) != before
        assert laptop.run(laptop.dnsfw("down")).returncode == 0
    assert resolv_conf(laptop) == before
