"""A change of policy, as live flows feel it.

Law: the engine's part: each flow that the former generation let through is judged again, and marked with the new one or
cut. Idle ones too, which no packet of theirs would bring to the queue. Whatever goes wrong here leaves flows to the
table, where the former generation's marks are about to be worth nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from bpf.sockdiag import SockDiag
from dnsfw.channel import Failed, JudgedAgain, Renewed
from dnsfw.control.answers import InForce
from dnsfw.errors import DnsfwError
from dnsfw.gate import Gate
from dnsfw.policies import Loaded
from firewall.conntrack import Conntrack, Tracked
from firewall.marks import MASK, STATE, Mark, connection_mark, generation_mark
from policy import Action, Proto
from resolver.server import Resolver

# What the policy must say for a flow to go on, by what it said before. What reaches the proxy is judged there again.
_ALLOWED: Final = frozenset({Action.ALLOW})
_JUDGED: Final = {
    Mark.ALLOW: _ALLOWED,
    Mark.PEEK: _ALLOWED,
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


@dataclass(frozen=True, slots=True)
class Renewal:
    """`read` reads the policy that is `in_force` afresh; `gate` and `resolver` live by it."""

    read: Callable[[], Loaded]
    in_force: InForce
    gate: Gate
    resolver: Resolver
    live: LiveFlows

    async def adopt(self) -> Renewed | Failed:
        """Nothing that the former policy decided is remembered, and what waits for an upstream is judged again."""
        try:
            loaded = await asyncio.to_thread(self.read)
        except DnsfwError as error:
            return Failed(error.problem, error.remedy, error.exit_status)
        self.gate.adopt(loaded.policy)
        self.resolver.policy_changed()
        self.in_force.loaded, self.in_force.since = loaded, time.time()
        self.in_force.generation += 1
        return Renewed()

    async def judge_again(self, former: int, generation: int) -> JudgedAgain:
        """All flows of generation `former`, giving way to everything else between some and the next."""
        kept = cut = 0
        try:
            for some in self.live.of(former):
                for tracked in some:
                    if self._may_go_on(tracked):
                        self.live.keep(tracked, generation)
                        kept += 1
                    else:
                        self.live.cut(tracked)
                        cut += 1
                await asyncio.sleep(0)
        except OSError as error:
            self.gate.fault(error, None)
        return JudgedAgain(kept, cut)

    def _may_go_on(self, tracked: Tracked) -> bool:
        try:
            return self.gate.again(tracked.flow) in _JUDGED[Mark(tracked.mark & STATE)]
        except Exception as error:  # noqa: BLE001 - a boundary like the queue's: this flow is cut
            self.gate.fault(error, tracked.flow)
            return False
