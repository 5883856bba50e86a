"""One scenario, played: upstream, target and clients brought together, and what came of it judged.

Law: order only. The target is fresh for each scenario, and so is the zone, so that nothing learnt in one helps another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from dnsfw.errors import DnsfwError
from dnsfw.poison.client import Asked, ask_all
from dnsfw.poison.peers import PROGRAMS, Peer
from dnsfw.poison.scenario import Ask, Reply, Scenario
from dnsfw.poison.spoofer import Spoofer
from dnsfw.poison.targets import Dnsfw, External, Target
from dnsfw.poison.upstream import Place, Script, Upstream
from dnsfw.poison.verdict import Observed, Outcome, Result, judge

OWN = "dnsfw"
_LIMIT = 40.0  # seconds for a scenario
_READY_WITHIN = 10.0  # for a target to start
_ALIVE = Ask(
    name="honest-alive",
    wait=3.0,
    expect=Reply(optional=True),  # a peer may have taken a hostile server off its list for a while
    harden=Reply(rcode="NOERROR", addresses=("198.51.100.1",)),
)
_READY = Ask(name="honest-ready", wait=0.1)

type Make = Callable[[Scenario, str, Place], Target]


@dataclass(frozen=True, slots=True)
class Stage:
    """Who is judged, and where. `run` is a label that makes the names of this run new."""

    target: str
    place: Place
    run: str
    spoofing: bool = True

    @property
    def make(self) -> Make:
        if self.target == OWN:
            return Dnsfw
        if self.target in PROGRAMS:
            return lambda _scenario, _zone, place: Peer(self.target, place)
        return External


async def play(scenario: Scenario, stage: Stage) -> Result:
    """Never raises for what a target does: one that can't be started is BROKEN."""
    zone = f"{scenario.id}.{stage.run}.example."
    target = stage.make(scenario, zone, stage.place)
    if target.standard.exempt(scenario) or (scenario.forged and not stage.spoofing):
        return Result(scenario.id, Outcome.NOT_APPLICABLE)
    began = time.monotonic()
    try:
        async with asyncio.timeout(_LIMIT):
            seen = await _observe(scenario, zone, stage, target)
    except TimeoutError:
        return Result(scenario.id, Outcome.BROKEN, (f"not over within {_LIMIT:g} s",), seconds=time.monotonic() - began)
    except (OSError, DnsfwError) as error:
        return Result(scenario.id, Outcome.BROKEN, (str(error),), seconds=time.monotonic() - began)
    return judge(scenario, seen, target.standard, time.monotonic() - began)


async def _observe(scenario: Scenario, zone: str, stage: Stage, target: Target) -> Observed:
    async with AsyncExitStack() as stack:
        spoofer = stack.enter_context(Spoofer()) if stage.spoofing else None
        script = Script(scenario.upstream, zone)
        upstream = await stack.enter_async_context(Upstream(stage.place, script, spoofer))
        await stack.enter_async_context(target)
        await _ready(zone, stage, target)
        asked = await ask_all(scenario.ask, zone, stage.place.target)
        arrived, probe = [*upstream.arrived], target.probe()
        if scenario.alive:
            asked += await ask_all([_ALIVE], zone, stage.place.target)
        return Observed(zone, asked, arrived, probe, target.trouble())


async def _ready(zone: str, stage: Stage, target: Target) -> None:
    """Until it answers an honest question. Raises TimeoutError, or SetupError with what it said at its end."""
    if stage.target == OWN:
        return
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        began = time.monotonic()
        if _answered(await ask_all([_READY], zone, stage.place.target)):
            return
        if said := target.trouble():
            raise DnsfwError("; ".join(said))
        await asyncio.sleep(max(0.0, 0.02 - (time.monotonic() - began)))
    raise TimeoutError


def _answered(asked: list[Asked]) -> bool:
    return any(answer.data[3] & 15 == 0 and answer.data[7] for one in asked for answer in one.answers)
