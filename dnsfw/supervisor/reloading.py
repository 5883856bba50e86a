"""The policy in force, and how another one takes its place: the supervisor's side.

Law: a child of its own reads and parses, with the rights that the first engine had when it did; the supervisor holds
what came out of it (dnsfw/policies/pinned.py) and looks at nothing. What was read is an offer to the engine, which
takes it or not; once taken it is in force, also for engines to come. Nothing here waits.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic, time

from dnsfw.channel import Effective, JudgeAgain, JudgedAgain, Kept, Renew, Renewed
from dnsfw.errors import DnsfwError
from dnsfw.machine import child
from dnsfw.machine.child import Child
from dnsfw.place import GuardOptions, Place
from dnsfw.policies import pinned
from dnsfw.policies.pinned import Unfit
from dnsfw.supervisor.engines import Engine
from dnsfw.terminal import complain, say
from firewall.nft import NftError
from firewall.table import Table

_REMEDY = "The policy before it stays in force."
_READ_WITHIN = 30.0  # seconds: a policy may ask tools of this machine's (@registry)


@dataclass(frozen=True, slots=True)
class _Reader:
    """A child that writes on `paper`, until then (monotonic seconds)."""

    process: Child
    paper: int
    until: float


class Reloading:
    """`paper` is the policy in force, of that `generation`, `since` then (seconds since the epoch). `came_of_it` says
    what the last reload came to; None while one is under way."""

    def __init__(self, options: GuardOptions, place: Place, table: Table, paper: int) -> None:
        self.paper = paper
        self.generation = 0
        self.since = place.began
        self.came_of_it: JudgedAgain | Kept | None = None
        self._read = partial(_read, options, place)
        self.table = table
        self._reader: _Reader | None = None
        self._offered: int | None = None
        self._judging = False
        self._again = False

    def begin(self) -> None:
        """Have the file read. Who asks while another is under way gets another one after it."""
        if self._reader is not None or self._offered is not None or self._judging:
            self._again = True
            return
        self.came_of_it = None
        self._again = False
        paper = pinned.paper()
        process = child.fork(partial(self._read, paper), [paper])
        self._reader = _Reader(process, paper, monotonic() + _READ_WITHIN)

    def tend(self, engine: Engine | None) -> None:
        """Offer what was read to the engine at work; begin again if somebody asked."""
        if self._again:
            self.begin()
        reader = self._reader
        if reader is None or engine is None or not engine.serving:
            return
        how = reader.process.end(0) if monotonic() > reader.until else reader.process.ended()
        if how is None:
            return
        if how != child.WELL:
            pinned.write(Unfit(f"The policy's reader died: {how}.", _REMEDY), reader.paper)
        self._reader, self._offered = None, reader.paper
        with suppress(OSError):  # it is dead, and will be missed
            engine.channel.send(Renew(), [self._offered])

    def patience(self) -> float | None:
        """Seconds until a reader has had enough time."""
        return None if self._reader is None else max(0.0, self._reader.until - monotonic())

    def said(self, message: Renewed | JudgedAgain | Kept, engine: Engine) -> None:
        """The engine's part is done."""
        match message:
            case Renewed() if self._offered is not None:
                self._take_offer(engine)
            case JudgedAgain() if self._judging:
                self._settle(message, engine)
            case Kept(problem=problem) if self._offered is not None:
                self._drop_offer(message)
                complain(f"the policy in force stays. {problem}")

    def missed(self) -> Kept | None:
        """The engine died. What it was offered it may have died of, and is not offered again: why. What it was to judge
        again goes to the next one, with its next packet."""
        refused = None if self._offered is None else Kept("The engine died while it was taking another policy.")
        self._drop_offer(refused)
        if self._judging:
            self._settle(JudgedAgain(0, 0), None)
        return refused

    def close(self) -> None:
        """Let go of everything."""
        if self._reader is not None:
            self._reader.process.end(0)
            os.close(self._reader.paper)
        self._drop_offer(None)
        os.close(self.paper)

    def _take_offer(self, engine: Engine) -> None:
        """The engine judges by it; now for what lives by the word of the one before."""
        if self._offered is None:
            return
        os.close(self.paper)
        self.paper, self._offered = self._offered, None
        former, self.generation, self.since = self.generation, self.generation + 1, time()
        self._judging = True
        self._mark(former)
        with suppress(OSError):  # it is dead, and will be missed
            engine.channel.send(JudgeAgain(former, self.generation))

    def _settle(self, judged: JudgedAgain, engine: Engine | None) -> None:
        """From here on the former one's word is worth nothing."""
        self._judging = False
        self._mark(None)
        self.came_of_it = judged
        say(f"another policy is in force: {judged.kept} live flows go on, {judged.cut} were cut.")
        if engine is not None:
            with suppress(OSError):
                engine.channel.send(Effective(self.generation))

    def _mark(self, former: int | None) -> None:
        try:
            self.table.set_generation(self.generation, former)
        except NftError as error:
            complain(f"what the policy before let through can't be judged again: {error}")

    def _drop_offer(self, why: Kept | None) -> None:
        if self._offered is not None:
            os.close(self._offered)
            self._offered, self.came_of_it = None, why


def _read(options: GuardOptions, place: Place, paper: int) -> int:
    # Imported by the reader alone: the supervisor stays small.
    from dnsfw.policies.reading import Surroundings, load_policy  # noqa: PLC0415

    try:
        loaded = load_policy(options.policy, Surroundings(place.environ, place.user, options.repo))
    except DnsfwError as error:
        pinned.write(Unfit(error.problem, _REMEDY), paper)
    else:
        pinned.write(loaded.pinned, paper)
    return 0
