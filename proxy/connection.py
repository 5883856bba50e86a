"""One client's connection, from its accepting to its end.

Law: mitmproxy's, with its hooks put to a `Client` instead of add-ons. Whatever breaks in between ends the connection
and is told.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, Final

from mitmproxy.proxy import commands, mode_specs
from mitmproxy.proxy.server import LiveConnectionHandler

from proxy.client import Address, Client, Means
from proxy.questions import GateGoneError

_MODE: Final = mode_specs.ProxyMode.parse("transparent")

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ClientConnection(LiveConnectionHandler):
    """`number` is the one by which the gate knows it, `destination` where the client meant to go."""

    def __init__(self, number: int, destination: Address, streams: Streams, means: Means) -> None:
        super().__init__(*streams, means.options, _MODE)
        self._answers = Client(number, destination, streams[1], means)
        self.client.sockname = self.layer.context.server.address = destination

    async def serve(self) -> None:
        """Until either side ends it."""
        try:
            await self.handle_client()
        finally:
            self._answers.close()

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """What mitmproxy wants to know. What a Client has no word for needs no answer."""
        answer = getattr(self._answers, hook.name, None)
        if answer is None:
            return
        with self.timeout_watchdog.disarm():
            try:
                await answer(*hook.args())
            except GateGoneError:
                self._answers.end()
            except Exception as error:  # noqa: BLE001 - A6: whatever it is, it ends this connection and is told
                self._answers.broken(f"{type(error).__name__}: {error}")

    def log(self, message: str, level: int = logging.INFO, exc_info: Any = None) -> None:
        """mitmproxy's own words: its errors are ours, the rest is nobody's business."""
        if level >= logging.ERROR:
            cause = exc_info[1] if isinstance(exc_info, tuple) else sys.exception()
            self._answers.broken(f"{message} {cause!r}")
