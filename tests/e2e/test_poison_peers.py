"""`dnsfw poison --spawn`: each peer starts with its profile and is judged.

Not a kernel test by its mark: a machine without these programs, which dnsfw itself never needs, skips it in CI too.
"""

from __future__ import annotations

import pytest

from dnsfw.poison.crew import play_all
from dnsfw.poison.peers import PROGRAMS
from dnsfw.poison.scenario import shipped
from dnsfw.poison.verdict import Outcome
from tests import features

CHOSEN = {"wrong-id": Outcome.HOLDS, "binding-expires": Outcome.NOT_APPLICABLE, "ech-stripped": Outcome.LACKS}


@pytest.mark.parametrize("peer", PROGRAMS)
def test_a_peer_is_started_and_judged(peer: str) -> None:
    if lacking := features.missing(("root", "netns")):
        pytest.skip(f"this machine lacks {', '.join(lacking)}")
    if PROGRAMS[peer].find() is None:
        pytest.skip(f"{peer} is not installed")
    results = play_all([each for each in shipped() if each.id in CHOSEN], peer, lambda _: None)
    assert {result.scenario: result.outcome for result in results} == CHOSEN, results
