"""What questions over the control socket set in motion.

Law: passes on. What the supervisor alone may do goes to it over the channel; who asked is told what came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dnsfw.channel import Channel, Held, Wanted
from dnsfw.control.messages import Accepted, HealthReport, HeldReport, ReloadReport
from dnsfw.errors import DnsfwError

type Reload = Callable[[], Awaitable[ReloadReport]]
type Health = Callable[[], Awaitable[HealthReport]]


class Orders:
    """Of one engine. `channel` leads to its supervisor; `reload` has the policy read again, `health` tries the guard.
    `held` is what lockdown has taken from users, in words."""

    def __init__(self, channel: Channel, reload: Reload, health: Health) -> None:
        self.held: tuple[str, ...] = ()
        self.reload = reload
        self.health = health
        self._channel = channel
        self._asking: list[asyncio.Future[HeldReport]] = []

    async def stop(self) -> Accepted:
        self._channel.send(Wanted("stop"))
        return Accepted()

    async def sudo(self, *, on: bool) -> HeldReport:
        """Give it back or take it again. Raises DnsfwError where the supervisor can't."""
        answer: asyncio.Future[HeldReport] = asyncio.get_running_loop().create_future()
        self._asking.append(answer)
        self._channel.send(Wanted("sudo-on" if on else "sudo-off"))
        return await answer

    def heard(self, held: Held) -> None:
        """The supervisor's word: it keeps the order in which it was asked."""
        self.held = held.words
        asking, self._asking = self._asking[:1], self._asking[1:]
        for answer in asking:
            if not answer.done():
                if held.problem:
                    answer.set_exception(DnsfwError(held.problem))
                else:
                    answer.set_result(HeldReport(held.words))
