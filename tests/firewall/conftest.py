"""The street as a fixture: made for one test and gone with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.firewall.street import Street, built


@pytest.fixture
def street() -> Iterator[Street]:
    with built() as street:
        yield street
