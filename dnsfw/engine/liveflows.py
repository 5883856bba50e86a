"""Live flows, as they feel a change of policy.

Law: the engine's part: each flow that the former generation let through is judged again, and marked with the new one or
cut. Idle ones too, which no packet of theirs would bring to the queue. Whatever goes wrong here leaves flows to the
table, where the former generation's marks are about to be worth nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from bpf.sockdiag import SockDiag
from dnsfw.channel import JudgedAgain
from dnsfw.engine.gate import Gate
from firewall.conntrack import Conntrack, Tracked
from firewall.marks import MASK, STATE, Mark, connection_mark, generation_mark
from policy import Action, Proto

# What the policy must say for a flow to go on, by what it said before. What reaches the proxy is judged there again.
_JUDGED: Final = {
    Mark.ALLOW: frozenset({Action.ALLOW}),
    Mark.PEEK: frozenset({Action.ALLOW, Action.PEEK}),
    Mark.INSPECT: frozenset({Action.ALLOW, Action.INSPECT}),
}


class LiveFlows:
    """The live flows of the network namespace that is current at construction; `stack` lets go of them."""

    def __init__(self, stack: ExitStack, diag: SockDiag) -> None:
        self._list = stack.enter_context(Conntrack())
        self._act = stack.enter_context(Conntrack())  # the list is still being read meanwhile
        self._diag = diag

    def of(self, generation: int) -> Iterator[list[Tracked]]:
        """Those with a verdict of that generation, some at a time. Raises OSError."""
        for some in self._list.marked(generation_mark(generation), MASK ^ STATE):
            yield [tracked for tracked in some if tracked.mark & STATE in _JUDGED]

    def keep(self, tracked: Tracked, generation: int) -> None:
        """The same verdict, of this generation."""
        self._act.mark(tracked, connection_mark(Mark(tracked.mark & STATE), generation), MASK)

    def cut(self, tracked: Tracked) -> None:
        """Its own socket first, while the reset that this sends still passes. One elsewhere (a container's) is refused
        with its next packet."""
        flow = tracked.flow
        if flow.proto in (Proto.TCP, Proto.UDP):
            found = self._diag.find(flow)
            if found is not None and (found.connected or flow.proto == Proto.TCP):
                self._diag.destroy(flow, found)
        self._act.forget(tracked)


async def judge_again(live: LiveFlows, gate: Gate, former: int, generation: int) -> JudgedAgain:
    """All flows of generation `former`, giving way to everything else between some and the next."""
    kept = cut = 0
    try:
        for some in live.of(former):
            for tracked in some:
                if _may_go_on(gate, tracked):
                    live.keep(tracked, generation)
                    kept += 1
                else:
                    live.cut(tracked)
                    cut += 1
            await asyncio.sleep(0)
    except OSError as error:
        gate.fault(error, None)
    return JudgedAgain(kept, cut)


def _may_go_on(gate: Gate, tracked: Tracked) -> bool:
    try:
        state = Mark(tracked.mark & STATE)
        return gate.again(tracked.flow, spoken=state is not Mark.PEEK) in _JUDGED[state]
    except Exception as error:  # noqa: BLE001 - a boundary like the queue's: this flow is cut
        gate.fault(error, tracked.flow)
        return False
