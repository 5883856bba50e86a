"""Another policy in the place of the one in force.

Law: the engine's side. What is offered is parsed first and taken whole or not at all: from one packet to the next the
gate judges by it, what it and the resolver remembered of the old one is forgotten, and only then is the supervisor
told, which has live flows judged again (dnsfw/engine/liveflows.py). Who asked hears of it when that is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from dnsfw.channel import Channel, Kept, Renewed, Wanted
from dnsfw.control.answers import InForce
from dnsfw.control.messages import ReloadReport
from dnsfw.engine.gate import Gate
from dnsfw.errors import DnsfwError, UsageError
from dnsfw.journal.lifecycle import Life, Turn
from dnsfw.policies import pinned
from dnsfw.policies.pinned import Unfit
from dnsfw.policies.reading import Loaded, pinned_policy
from policy import Policy
from policy.inspected import inspected
from policy.render import render
from resolver.server import Resolver

_TOLD = 200  # changed rules in one record


@dataclass(frozen=True, slots=True)
class Judges:
    """What judges by the policy, or remembers what was judged. `inspected` are the hosts that the proxy is for."""

    gate: Gate
    resolver: Resolver
    in_force: InForce
    inspected: tuple[str, ...]


class Renewal:
    """`tell` takes what the journal is to have; `clock` is seconds since the epoch."""

    def __init__(
        self, channel: Channel, judges: Judges, tell: Callable[[Life], None], clock: Callable[[], float]
    ) -> None:
        self._channel = channel
        self._judges = judges
        self._tell = tell
        self._clock = clock
        self._taken: tuple[Loaded, Loaded] | None = None  # old and new, while the supervisor makes it effective
        self._asking: set[asyncio.Future[ReloadReport]] = set()

    async def reload(self) -> ReloadReport:
        """Have the policy read again. Raises DnsfwError where it can't be, and then nothing has changed."""
        answer: asyncio.Future[ReloadReport] = asyncio.get_running_loop().create_future()
        self._asking.add(answer)
        try:
            self._channel.send(Wanted("reload"))
            return await answer
        finally:
            self._asking.discard(answer)

    def offered(self, paper: int) -> None:
        """Another policy from the supervisor, or what is wrong with it (dnsfw/policies/pinned.py)."""
        try:
            loaded = self._fit(_loaded(paper))
        except DnsfwError as error:
            self._refuse(error)
            return
        judges = self._judges
        self._taken = (judges.in_force.loaded, loaded)
        judges.gate.adopt(loaded.policy)
        judges.resolver.policy_changed()
        judges.in_force.loaded = loaded
        self._channel.send(Renewed())

    def effective(self, generation: int) -> None:
        """Nothing goes on any more by the old one's word."""
        if self._taken is None:
            return
        (old, new), self._taken = self._taken, None
        in_force = self._judges.in_force
        in_force.generation, in_force.since = generation, self._clock()
        added, removed = changes(old.policy, new.policy)
        lines = (*(f"+ {line}" for line in added), *(f"- {line}" for line in removed))
        reason = f"{new.file or 'the empty policy'}: generation {generation}, {len(added)} more, {len(removed)} less"
        self._tell(Life(Turn.RELOADED, in_force.since, "policy", reason, lines[:_TOLD]))
        self._answer(lambda answer: answer.set_result(ReloadReport(in_force.state(), added, removed)))

    def _fit(self, loaded: Loaded) -> Loaded:
        """A proxy's authority is for the hosts that it was started for, and none else. Raises UsageError."""
        more = set(inspected(loaded.policy)) - set(self._judges.inspected)
        if more:
            raise UsageError(
                f"Rules with URLs for {', '.join(sorted(more)[:5])} need another proxy.",
                "Take the guard down and start it again. The policy before it stays in force.",
            )
        return loaded

    def _refuse(self, error: DnsfwError) -> None:
        self._tell(Life(Turn.REFUSED, self._clock(), "policy", error.problem))
        self._channel.send(Kept(error.problem))
        self._answer(lambda answer: answer.set_exception(error))

    def _answer(self, settle: Callable[[asyncio.Future[ReloadReport]], None]) -> None:
        for answer in self._asking:
            if not answer.done():
                settle(answer)


def _loaded(paper: int) -> Loaded:
    """Raises DnsfwError."""
    try:
        read = pinned.read(paper)
    except ValueError as error:
        raise DnsfwError(f"What was read can't be understood: {error}.") from error
    if isinstance(read, Unfit):
        raise UsageError(read.problem, read.remedy)
    return pinned_policy(read)


def changes(old: Policy, new: Policy) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rules that `new` has more and that it has less, as canonical lines in their order."""
    before, after = ({render(rule): None for rule in policy.rules} for policy in (old, new))
    return tuple(line for line in after if line not in before), tuple(line for line in before if line not in after)
