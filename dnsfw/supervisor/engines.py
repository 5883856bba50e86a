"""One engine after the other, as the supervisor sees them.

Law: forks an engine, hears it, and tells when and how it ended. Never waits but where it says so. What is said is
for `guard` to understand.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import monotonic

from dnsfw.channel import Channel, Failed, Message, channel_pair
from dnsfw.errors import DnsfwError
from dnsfw.machine import child
from dnsfw.place import EngineConfig
from dnsfw.restarts import Restarts

STARTS_WITHIN = 30.0  # seconds, to the word that it answers
_ENDS_WITHIN = 5.0


class EngineError(DnsfwError):
    """The engine said why it can't start."""

    def __init__(self, said: Failed) -> None:
        super().__init__(said.problem, said.remedy)
        self.exit_status = said.exit_status


class Engine:
    """A process at work, or about to be: `serving` once it said so. `pid` is its process id."""

    def __init__(self, config: EngineConfig) -> None:
        self.serving = False
        self.channel, theirs = channel_pair()
        self._born = monotonic()
        self._failed = ""
        kept = [theirs.fileno(), *config.descriptors()]
        self._process = child.fork(partial(_live, config, theirs), kept)
        self.pid = self._process.pid
        theirs.close()
        self.channel.signal_when_readable()

    def said(self) -> Iterator[Message]:
        """What it said since. Hanging up is its end."""
        while True:
            try:
                message = self.channel.receive(patience=0)
            except TimeoutError:
                return
            if message is None:
                return
            if isinstance(message, Failed):
                self._failed = message.problem
            yield message

    def expect[M: Message](self, kind: type[M]) -> M:
        """Wait for the one message that has to come next while it starts. Raises DnsfwError."""
        said = self._next(STARTS_WITHIN)
        if isinstance(said, Failed):
            raise EngineError(said)
        if not isinstance(said, kind):
            raise DnsfwError("The engine died while starting.", "This is a fault of dnsfw's; please report it.")
        return said

    def await_last[M: Message](self, kind: type[M]) -> M | None:
        """Wait for its last word; None if it ends without."""
        while True:
            said = self._next(_ENDS_WITHIN)
            if said is None or isinstance(said, kind):
                return said

    def _next(self, patience: float) -> Message | None:
        try:
            return self.channel.receive(patience)
        except TimeoutError:
            return None

    def ended(self) -> str | None:
        """How it ended; None while it lives. One that doesn't get to work in time is ended here."""
        if not self.serving and monotonic() - self._born > STARTS_WITHIN:
            self._failed = self._failed or f"not at work within {STARTS_WITHIN:g} s"
            self._process.end(0)
        how = self._process.ended()
        return how and (self._failed or how)

    def end(self) -> None:
        """Hang up, which the engine takes as its end, and wait for that."""
        self.channel.close()
        self._process.end(_ENDS_WITHIN)


class Engines:
    """One at a time: `now` is the engine of the day, None between two. The first is born with this object."""

    def __init__(self, config: EngineConfig) -> None:
        self.restarts = Restarts()
        self.config = config
        self.now: Engine | None = None
        self.first = self.begin()

    def begin(self) -> Engine:
        """The next one."""
        self.now = Engine(self.config)
        return self.now

    def at_work(self, engine: Engine) -> None:
        """It said so."""
        engine.serving = True
        self.restarts.started(monotonic())

    def bury(self, engine: Engine, how: str) -> None:
        """It is dead; when the next one is due is for `restarts` to say."""
        engine.end()
        self.now = None
        self.restarts.died(how, monotonic())

    def due(self) -> bool:
        """Is it time for the next one?"""
        return self.now is None and self.restarts.wait(monotonic()) == 0

    def patience(self) -> float | None:
        """Seconds until something is due by itself; None if only a signal will tell."""
        if self.now is None:
            return self.restarts.wait(monotonic())
        return None if self.now.serving else STARTS_WITHIN

    def end(self) -> None:
        """No more of them."""
        if self.now is not None:
            self.now.end()


def _live(config: EngineConfig, channel: Channel) -> int:
    # Imported by the engine alone: the supervisor stays small.
    from dnsfw.engine.main import run  # noqa: PLC0415

    return run(config, channel)
