"""What time does to a run: asked late, of one that test_run_cleanup.py began, so that hardly anybody waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dnsfw.playground import atlas

if TYPE_CHECKING:  # a plugin is not to be imported before pytest does
    from tests.e2e.lasting import Lasting

pytestmark = pytest.mark.kernel
pytest_plugins = ["tests.e2e.lasting"]


@pytest.mark.timeout(120)
def test_a_binding_ends_with_its_time_but_not_what_it_opened(lasting: Lasting) -> None:
    lasting.await_expiry()
    for address in atlas.ALLOWED.addresses:
        assert lasting.inside.tcp(address, atlas.ECHO_PORT)["outcome"] == "ECONNREFUSED"
    assert lasting.inside.again("up", "still there") == "still there"
    assert lasting.inside.resolve(atlas.ALLOWED_NAME) == sorted(atlas.ALLOWED.addresses)
    for address in atlas.ALLOWED.addresses:
        assert lasting.inside.tcp(address, atlas.ECHO_PORT, "again")["reply"] == "again"
