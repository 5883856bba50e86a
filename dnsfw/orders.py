"""What questions over the control socket set in motion.

Law: passes on. What the supervisor alone may do goes to it over the channel; the answer is that it was passed on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from dnsfw.channel import Channel, Wanted
from dnsfw.control.messages import Accepted, HealthReport, ReloadReport
from dnsfw.errors import DnsfwError


class Orders:
    """Of one engine. `channel` leads to its supervisor; `reload` has the policy read again."""

    def __init__(self, channel: Channel, reload: Callable[[], Awaitable[ReloadReport]]) -> None:
        self._channel = channel
        self._reload = reload

    async def stop(self) -> Accepted:
        self._channel.send(Wanted("stop"))
        return Accepted()

    async def sudo(self, *, on: bool) -> Accepted:
        self._channel.send(Wanted("sudo-on" if on else "sudo-off"))
        return Accepted()

    async def reload(self) -> ReloadReport:
        return await self._reload()

    async def health(self) -> HealthReport:
        raise DnsfwError("This guard can't try itself.")
