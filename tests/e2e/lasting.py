"""A run that outlives its bindings, started early so that nobody waits for it.

Law: one fixture; a plugin of the test modules that start it and of the one that asks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import Inside, Laptop

BINDING_SECONDS = 60.0  # the zone's time to live, and the least that a binding lives


@dataclass(frozen=True, slots=True)
class Lasting:
    """An agent that has resolved the allowed name, and has a connection to it called "up". `since` is monotonic."""

    inside: Inside
    since: float

    def await_expiry(self) -> None:
        time.sleep(max(0.0, self.since + BINDING_SECONDS + 0.5 - time.monotonic()))


@pytest.fixture(scope="session")
def lasting(loopback_world: Playground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lasting]:
    laptop = Laptop(loopback_world, tmp_path_factory.mktemp("lasting"))
    with laptop.agent(f"{atlas.ALLOWED_NAME}:{atlas.ECHO_PORT}\n") as inside:
        assert inside.resolve(atlas.ALLOWED_NAME) == sorted(atlas.ALLOWED.addresses)
        since = time.monotonic()
        assert inside.tcp(atlas.ALLOWED.v4, atlas.ECHO_PORT, "hello", keep="up")["reply"] == "hello"
        yield Lasting(inside, since)
