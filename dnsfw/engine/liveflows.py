"""Live flows, as they feel a change of policy.

Law: the engine's part: each flow that the former generation let through is judged again, and marked with the new one or
cut; cut first. Idle ones too, which no packet of theirs would bring to the queue. Whatever goes wrong here leaves flows
to the table, where the former generation's marks are about to be worth nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import batched
from typing import Final, NamedTuple

from bpf.sockdiag import SockDiag
from dnsfw.channel import JudgedAgain
from dnsfw.engine.gate import Gate, Past
from firewall.conntrack import Conntrack
from firewall.ctnetlink import Tracked
from firewall.marks import LISTENING, MASK, STATE, Mark, generation_mark
from policy import Action

# What the policy must say for a flow to go on, by what it said before. What reaches the proxy is judged there again.
_JUDGED: Final = {
    Mark.ALLOW: frozenset({Action.ALLOW}),
    Mark.PEEK: frozenset({Action.ALLOW, Action.PEEK}),
    LISTENING: frozenset({Action.ALLOW}),
    Mark.INSPECT: frozenset({Action.ALLOW, Action.INSPECT}),
}
_AT_ONCE: Final = 256  # flows, and then everything else for a moment


class LiveFlows:
    """The live flows of the network namespace that is current at construction; `stack` lets go of them."""

    def __init__(self, stack: ExitStack) -> None:
        self._conntrack = stack.enter_context(Conntrack())
        self._diag = stack.enter_context(SockDiag())  # a list is read from it while owners are asked for elsewhere

    def of(self, generation: int) -> Iterator[list[Tracked]]:
        """Those with a verdict of that generation, some at a time. Raises OSError."""
        for some in self._conntrack.marked(generation_mark(generation), MASK ^ STATE):
            yield [tracked for tracked in some if tracked.mark & STATE in _JUDGED]

    def keep(self, those: Iterable[Tracked], former: int, generation: int) -> Iterator[None]:
        """The same verdict, of this generation."""
        for some in batched(those, _AT_ONCE):
            self._conntrack.flip(some, generation_mark(former) ^ generation_mark(generation))
            yield

    def cut(self, those: list[Tracked]) -> Iterator[None]:
        """Their own sockets first, while the resets that this sends still pass. One elsewhere (a container's) is
        refused with its next packet."""
        yield from self._diag.abort([tracked.packed for tracked in those])
        for some in batched(those, _AT_ONCE):
            self._conntrack.forget(some)
            yield


class _Alike(NamedTuple):
    """Flows that have everything in common that decides: all but their source ports."""

    past: Past
    state: Mark
    flows: list[Tracked]


async def judge_again(live: LiveFlows, gate: Gate, former: int, generation: int) -> JudgedAgain:
    """All flows of generation `former`, giving way to everything else between some and the next."""
    kept = cut = 0
    stay: list[Tracked] = []
    go: list[Tracked] = []
    try:
        for alike in (await _alike(live.of(former), gate)).values():
            (stay if _may_go_on(gate, alike) else go).extend(alike.flows)
        for _ in live.cut(go):
            await asyncio.sleep(0)
        cut = len(go)
        for _ in live.keep(stay, former, generation):
            await asyncio.sleep(0)
        kept = len(stay)
    except OSError as error:
        gate.fault(error, None)
    return JudgedAgain(kept, cut)


async def _alike(live: Iterable[list[Tracked]], gate: Gate) -> dict[object, _Alike]:
    groups: dict[object, _Alike] = {}
    for some in live:
        for tracked in some:
            past, packed = _past(gate, tracked), tracked.packed
            # An owner hashes slowly, and is the same one for the same process; the group keeps it alive.
            key = (tracked.mark & STATE, packed[:1], packed[3:], id(past.owner), past.names, past.certain)
            group = groups.get(key)
            if group is None:
                group = groups[key] = _Alike(past, Mark(tracked.mark & STATE), [])
            group.flows.append(tracked)
        await asyncio.sleep(0)
    return groups


def _past(gate: Gate, tracked: Tracked) -> Past:
    try:
        return gate.past(tracked.packed)
    except Exception as error:  # noqa: BLE001 - a boundary like the queue's: of this flow, nothing is known
        gate.fault(error, tracked.flow)
        return Past(None, (), certain=False)


def _may_go_on(gate: Gate, alike: _Alike) -> bool:
    flow = alike.flows[0].flow
    try:
        spoken = alike.state is not Mark.PEEK
        action = gate.all_again(flow, alike.past, spoken=spoken, times=len(alike.flows))
        return action in _JUDGED[alike.state]
    except Exception as error:  # noqa: BLE001 - a boundary like the queue's: these flows are cut
        gate.fault(error, flow)
        return False
