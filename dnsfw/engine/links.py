"""A guarded host's network devices, as they come and go.

Law: hears of devices and has the rooms do what each takes; a namespace of our own has none to hear of.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import ExitStack

from firewall.frames import LinkWatch
from firewall.inner import InnerBridges
from firewall.nft import NftError


class Links:
    """Made as root; `stack` lets go of it. `fault` hears of what could not be done."""

    def __init__(self, stack: ExitStack, fault: Callable[[BaseException], None]) -> None:
        self._watch = stack.enter_context(LinkWatch())
        self._inner = stack.enter_context(InnerBridges())
        self._fault = fault

    def serve(self, loop: AbstractEventLoop) -> None:
        """Those that are there, and those that appear (container engines, VPNs)."""
        loop.add_reader(self._watch.fileno(), self._cover)
        self._cover()

    def trouble(self) -> list[str]:
        """Sentences about what no rule of ours can meet."""
        return [
            f"what containers and virtual machines on {name} send goes to that bridge's other ports unjudged; give"
            " them a bridge of their own"
            for name in self._inner.shared
        ]

    def _cover(self) -> None:
        """Frames are stopped at each device; bridges that lead nowhere but to this host's containers are known."""
        for _, name in self._watch.update():
            self._fault(OSError(f"frames that a program makes itself are not stopped at the device {name}"))
        try:
            self._inner.update()
        except NftError as error:
            self._fault(error)
