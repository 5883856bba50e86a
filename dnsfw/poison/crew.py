"""Many scenarios at a time: workers, each in a network namespace of its own, and one queue of work.

Law: hands out and collects. What is played is not looked at here.
"""

from __future__ import annotations

import asyncio
import queue
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec

from dnsfw.playground.control import Child
from dnsfw.poison.bench import Stage, play
from dnsfw.poison.scenario import Scenario
from dnsfw.poison.verdict import Result

_WORKERS = 6  # most scenarios wait most of their time
_STARTS_WITHIN = 20.0  # seconds, on a busy machine
_PLAYS_WITHIN = 60.0

type Told = Callable[[Result], None]


def play_all(scenarios: Sequence[Scenario], target: str, told: Told) -> list[Result]:
    """Each in a namespace, against dnsfw or a peer of that name; in the order given. `told` hears of each at once,
    from any thread. Raises SetupError."""
    work: queue.SimpleQueue[str] = queue.SimpleQueue()
    for scenario in scenarios:
        work.put(scenario.id)
    run = new_run()
    count = min(_WORKERS, len(scenarios))
    with ThreadPoolExecutor(count) as crew:
        shifts = [crew.submit(_shift, work, target, run, told) for _ in range(count)]
        found = {result.scenario: result for shift in shifts for result in shift.result()}
    return [found[scenario.id] for scenario in scenarios]


def play_here(scenarios: Sequence[Scenario], stage: Stage, told: Told) -> list[Result]:
    """One after the other, against something that runs already."""
    results = []
    for scenario in scenarios:
        results.append(asyncio.run(play(scenario, stage)))
        told(results[-1])
    return results


def new_run() -> str:
    """A label that no cache has seen."""
    return f"r{secrets.token_hex(3)}"


def _shift(work: queue.SimpleQueue[str], target: str, run: str, told: Told) -> list[Result]:
    results = []
    with Child("dnsfw.poison.worker", [target, run], keep=[]) as child:
        child.hear(within=_STARTS_WITHIN)
        for name in _taken(work):
            results.append(msgspec.convert(child.ask({"scenario": name}, within=_PLAYS_WITHIN), Result))
            told(results[-1])
    return results


def _taken(work: queue.SimpleQueue[str]) -> Iterator[str]:
    with suppress(queue.Empty):
        while True:
            yield work.get_nowait()
