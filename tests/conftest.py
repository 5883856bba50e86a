"""What holds for every test.

Law: order, features, leftovers. Fast tests run first. A `kernel` test names the features it needs and is skipped where
one is lacking; in CI, a kernel test that skips itself where all are present is a failure, so that nothing goes untested
in silence. Nothing may be left on the machine when the last test has ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests import features, leftovers

settings.register_profile("dnsfw", deadline=None)  # a busy machine proves nothing
settings.load_profile("dnsfw")

_SECONDS_TO_GO_AWAY = 5.0  # the kernel takes a cgroup or a namespace down a moment after its last process


def _needs(item: pytest.Item) -> tuple[str, ...] | None:
    """The features that a kernel test names (all of them when it names none); None for any other test."""
    markers = list(item.iter_markers("kernel"))
    if not markers:
        return None
    return tuple({feature for marker in markers for feature in marker.args or features.ALL})


def pytest_report_header() -> str:
    lacking = features.missing(features.ALL)
    return (
        f"kernel tests: {'this machine lacks ' + ', '.join(lacking) if lacking else 'this machine has all they need'}"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (_needs(item) is not None, "e2e" in item.path.parts))


def pytest_runtest_setup(item: pytest.Item) -> None:
    lacking = features.missing(_needs(item) or ())
    if lacking:
        pytest.skip(f"this machine lacks {', '.join(lacking)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    needs = _needs(item)
    skipped_itself = report.skipped and not hasattr(report, "wasxfail")
    in_ci = os.environ.get("CI") == "true"
    if in_ci and skipped_itself and needs is not None and not features.missing(needs):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, on a machine that has {', '.join(needs)}: {report.longrepr}"
    return report


@pytest.fixture(autouse=True, scope="session")
def nothing_is_left() -> Iterator[None]:
    """Set up before every other fixture, so torn down after them all."""
    before = leftovers.on_this_machine()
    name, value = "DNSFW_TEST_SESSION", str(os.getpid())
    os.environ[name] = value  # every program that a test starts carries it
    yield
    deadline = time.monotonic() + _SECONDS_TO_GO_AWAY
    while left := leftovers.on_this_machine() - before | leftovers.processes(f"{name}={value}"):
        if time.monotonic() > deadline:
            pytest.fail(f"left on the machine: {', '.join(sorted(left))}", pytrace=False)
        time.sleep(0.1)
