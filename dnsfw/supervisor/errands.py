"""What the supervisor does at an engine's word, since only root may.

Law: few things, each with its bounds, none with a choice for the engine: a new journal file where the old one is, a try
from inside by a child without privilege, sudo for the one user whom lockdown took it from.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from dnsfw.channel import Held, Probe, TurnedOver, Wanted
from dnsfw.errors import DnsfwError
from dnsfw.journal.file import turn_over
from dnsfw.machine import child
from dnsfw.machine.child import Child
from dnsfw.place import GuardOptions, Place
from dnsfw.supervisor.engines import Engine
from dnsfw.terminal import complain

if TYPE_CHECKING:
    from dnsfw.lockdown.hold import Hold


class Errands:
    """`hold` is what lockdown has in its hands; None under `run`."""

    def __init__(self, options: GuardOptions, place: Place) -> None:
        self.hold: Hold | None = None
        self._options = options
        self._place = place
        self._probe: Child | None = None

    def do(self, wanted: Wanted | Probe, engine: Engine) -> None:
        """One of them; what came of it is told to the engine."""
        match wanted:
            case Probe():
                self._try(wanted, engine.channel.descriptors())
            case Wanted(what="turn-over"):
                self._turn_over(engine)
            case Wanted(what="sudo-on" | "sudo-off" as what):
                self._sudo(engine, on=what == "sudo-on")
            case _:
                pass  # the guard's own affair

    def tell(self, engine: Engine, problem: str = "") -> None:
        """What is held now."""
        if self.hold is not None:
            with suppress(OSError):  # it is dead, and the next one will be told
                engine.channel.send(Held(self.hold.held(), problem))

    def close(self) -> None:
        """Wait for nothing that is still under way."""
        if self._probe is not None:
            self._probe.end(0)

    def _try(self, told: Probe, descriptors: list[int]) -> None:
        """One at a time: who asks while one is under way is answered with an empty answer."""
        if descriptors and (self._probe is None or self._probe.ended() is not None):
            network = self._place.network
            keep = descriptors if network is None else [*descriptors, network.fd]
            self._probe = child.fork(partial(_probe, self._place, told, descriptors[0]), keep)
        for descriptor in descriptors:
            os.close(descriptor)

    def _turn_over(self, engine: Engine) -> None:
        journal = self._options.journal
        if journal is None:
            return
        try:
            file = turn_over(journal, self._place.user, self._options.rotation.files)
        except OSError as error:
            complain(f"the journal {journal} can't be turned over: {error.strerror}.")
            return
        with suppress(OSError):
            engine.channel.send(TurnedOver(), [file])
        os.close(file)

    def _sudo(self, engine: Engine, *, on: bool) -> None:
        hold, problem = self.hold, ""
        if hold is None:
            problem = "This guard has taken nothing from anybody."
        else:
            try:
                hold.sudo(on=on)
            except DnsfwError as error:
                problem = error.problem
        with suppress(OSError):
            engine.channel.send(Held(() if hold is None else hold.held(), problem))


def _probe(place: Place, told: Probe, answer: int) -> int:
    # Imported by the child alone, while it may read everything: the supervisor stays small.
    from dnsfw.engine.probe import probe  # noqa: PLC0415

    return probe(place, told, answer)
