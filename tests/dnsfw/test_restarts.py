"""When what died is started again."""

from __future__ import annotations

import pytest

from dnsfw.restarts import Pace, Restarts

PACE = Pace(first=0.1, longest=1.0, steady=60.0, many=3)


def lives(lengths: list[float]) -> tuple[Restarts, list[float]]:
    """A process that lived so long each time, in seconds, and was started again as soon as allowed; the pauses."""
    restarts, now, pauses = Restarts(PACE), 1000.0, []
    for length in lengths:
        restarts.started(now)
        now += length
        pauses.append(restarts.died("signal 9", now))
        now += pauses[-1]
    return restarts, pauses


@pytest.mark.parametrize(
    ("lengths", "pauses"),
    [
        ([5.0], [0.1]),
        ([0.0] * 6, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
        ([1.0, 59.9, 60.0, 0.0], [0.1, 0.2, 0.1, 0.2]),
        ([100.0] * 3, [0.1, 0.1, 0.1]),
    ],
    ids=["the first comes soon", "doubled up to the longest", "a steady life makes up for it", "once in a while"],
)
def test_pauses(lengths: list[float], pauses: list[float]) -> None:
    assert lives(lengths)[1] == pytest.approx(pauses)


@pytest.mark.parametrize(("deaths", "failed"), [(0, False), (2, False), (3, True), (9, True)])
def test_many_deaths_in_a_row_are_a_failure(deaths: int, failed: bool) -> None:
    restarts, _ = lives([0.0] * deaths)
    assert restarts.failed is failed
    assert restarts.total == deaths


def test_a_steady_life_ends_a_failure() -> None:
    restarts, _ = lives([0.0] * 5 + [60.0])
    assert not restarts.failed
    assert restarts.total == 6


def test_never_getting_to_work_is_no_steady_life() -> None:
    restarts = Restarts(PACE)
    restarts.started(0.0)
    deaths = [1000.0 + 100.0 * number for number in range(4)]
    assert [restarts.died("exit status 125", now) for now in deaths] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert restarts.failed


def test_what_lives_is_not_started_again() -> None:
    restarts = Restarts(PACE)
    restarts.started(10.0)
    assert restarts.wait(10.0) is None
    restarts.died("exit status 1", 20.0)
    assert [restarts.wait(now) for now in (20.0, 20.05, 20.1, 99.0)] == pytest.approx([0.1, 0.05, 0.0, 0.0])
    assert restarts.reason == "exit status 1"
    restarts.started(99.0)
    assert restarts.wait(99.0) is None


def test_it_is_never_given_up() -> None:
    _, pauses = lives([0.0] * 5_000)
    assert pauses[-1] == PACE.longest
