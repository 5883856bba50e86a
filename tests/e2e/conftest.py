"""The playground as a fixture: real namespaces, real packets, once a session.

Law: fixtures only; the playground itself is `dnsfw.playground`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from dnsfw.playground.world import Playground, Setting


@dataclass(frozen=True, slots=True)
class Guard:
    """`dnsfw run` on the laptop of a playground."""

    world: Playground
    directory: Path

    def command(self, policy: str, command: Sequence[str], *options: str) -> list[str]:
        """The command line `dnsfw run --policy FILE options… -- command…`, FILE holding the text `policy`."""
        file = self.directory / "policy"
        file.write_text(policy, encoding="utf-8")
        return self.world.dnsfw("run", "--policy", str(file), *options, "--", *command)

    def run(self, policy: str, command: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
        """Guard `command` by the text `policy`, to its end."""
        return self.world.run(self.command(policy, command, *options))


@pytest.fixture(scope="session")
def world() -> Iterator[Playground]:
    """The usual laptop: its resolver is the upstream, its default route is the internet's router."""
    with Playground(Setting()) as world:
        yield world


@pytest.fixture(scope="session")
def loopback_world() -> Iterator[Playground]:
    """A laptop whose resolver is a stub on its own loopback (127.0.0.53)."""
    with Playground(Setting(stub_resolver=True)) as world:
        yield world


@pytest.fixture(scope="session")
def routeless_world() -> Iterator[Playground]:
    """A laptop without any default route."""
    with Playground(Setting(default_route=False)) as world:
        yield world


@pytest.fixture(scope="session")
def host_world() -> Iterator[Playground]:
    """A laptop for `up`, which changes the whole of it and leaves it as it was."""
    with Playground(Setting()) as world:
        yield world


@pytest.fixture
def host(host_world: Playground) -> Iterator[Playground]:
    """That laptop, for one test at a time: what one that failed left in force is taken down."""
    yield host_world
    if "dnsfw" in host_world.run(["nft", "list", "tables"]).stdout:
        host_world.run(host_world.dnsfw("down"))


@pytest.fixture
def guard(world: Playground, tmp_path: Path) -> Guard:
    """`dnsfw run` on the usual laptop."""
    return Guard(world, tmp_path)
