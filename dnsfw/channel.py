"""What the supervisor, the engine and the proxy's keeper say to each other.

Law: typed messages over a SOCK_SEQPACKET pair, one datagram each, some with descriptors. The end of either side is the
end of the conversation, which both must expect at any time.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Sequence
from typing import Literal

import msgspec

from dnsfw.journal.lifecycle import Gap, Life

_LARGEST = 1 << 18  # more than a socket takes at once (net.core.wmem_default): no summary is cut
_DESCRIPTORS = 32  # more than any message has


class Listening(msgspec.Struct, frozen=True, tag=True):
    """Engine: my queue is bound and here is the policy (a descriptor, dnsfw/policies/pinned.py); put the table in
    force. `inspected` are the hosts that the proxy is for (policy.inspected)."""

    inspected: tuple[str, ...] = ()


class Inheritance(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: here is what outlives engines: the BPF maps and links (descriptors); the policy's `generation` and
    `since` when it is in force (seconds since the epoch); how many engines died before you, and the last of them; and
    what is still to be written down. `inspected` are the hosts that the proxy was started for. `gaps` are the times
    without an engine; the one that you end began at `down_since` (seconds since the epoch; 0: you are the first)."""

    generation: int
    since: float
    deaths: int = 0
    last_death: Life | None = None
    lives: tuple[Life, ...] = ()
    inspected: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    down_since: float = 0.0


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Engine: everything that is asked is answered from now on."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Engine, keeper: I can't start."""

    problem: str
    remedy: str
    exit_status: int


class Finish(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the command has ended; write everything down, report, go."""


class Finished(msgspec.Struct, frozen=True, tag=True):
    """Engine: it is written."""

    denied: int
    summary: str


class Renew(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: here is another policy, or what is wrong with it (a descriptor, dnsfw/policies/pinned.py)."""


class Renewed(msgspec.Struct, frozen=True, tag=True):
    """Engine: I judge by it from here on."""


class Kept(msgspec.Struct, frozen=True, tag=True):
    """Engine: it is not fit; I judge as before."""

    problem: str


class JudgeAgain(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the table takes flows of both generations; look through those of the former one."""

    former: int
    generation: int


class JudgedAgain(msgspec.Struct, frozen=True, tag=True):
    """Engine: each goes on as one of the new generation, or was cut."""

    kept: int
    cut: int


class Effective(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: nothing goes on any more by the word of the policy before; this one is that generation."""

    generation: int


class Wanted(msgspec.Struct, frozen=True, tag=True):
    """Engine: somebody who may asks the supervisor for this (dnsfw/control), or the policy's file has changed."""

    what: Literal["stop", "reload", "sudo-on", "sudo-off", "turn-over"]


class Held(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: what users are denied meanwhile, in words; and what went wrong, "" if nothing did."""

    words: tuple[str, ...]
    problem: str = ""


class Alive(msgspec.Struct, frozen=True, tag=True):
    """Engine: my loop turns (where a service manager watches)."""


class TurnedOver(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: here is the journal's next file (a descriptor)."""


class Probe(msgspec.Struct, frozen=True, tag=True):
    """Engine: try this from inside, and write what came of it to the descriptor (dnsfw/engine/probe.py). `host`
    (and its `port`), "" for none, must work, `no_host` must not resolve, `no_place` not be reached."""

    host: str
    port: int
    no_host: str
    no_place: tuple[str, int]


class Serving(msgspec.Struct, frozen=True, tag=True):
    """Keeper, to the supervisor: the first proxy serves. `variables` are what a program needs to trust it, `views` what
    it is to be shown: (source, target), in this order."""

    variables: dict[str, str]
    views: tuple[tuple[str, str], ...]


class Turned(msgspec.Struct, frozen=True, tag=True):
    """Keeper, to the engine of the day: a proxy's turn. With one that starts comes its conversation (a descriptor)."""

    life: Life


type _Renewal = Renew | Renewed | Kept | JudgeAgain | JudgedAgain | Effective
type _Keeper = Serving | Turned
type _Errand = Wanted | Held | TurnedOver | Probe | Alive
type Message = Listening | Inheritance | Ready | Failed | _Renewal | _Keeper | _Errand | Finish | Finished

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(
    Listening
    | Inheritance
    | Ready
    | Failed
    | Renew
    | Renewed
    | Kept
    | JudgeAgain
    | JudgedAgain
    | Effective
    | Serving
    | Turned
    | Finish
    | Finished
    | Wanted
    | Held
    | TurnedOver
    | Probe
    | Alive
)


class Channel:
    """One end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._came: list[int] = []

    def descriptors(self) -> list[int]:
        """Those that came with the last message, now the caller's to close. What nobody asks for is closed with the
        next message."""
        came, self._came = self._came, []
        return came

    def fileno(self) -> int:
        """For event loops."""
        return self._sock.fileno()

    def signal_when_readable(self) -> None:
        """This process gets SIGIO, blocked from here on, when there is something to receive (fcntl(2), O_ASYNC)."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
        signal.signal(signal.SIGIO, _unheard)
        fcntl.fcntl(self._sock, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._sock, fcntl.F_SETFL, fcntl.fcntl(self._sock, fcntl.F_GETFL) | os.O_ASYNC)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Raises OSError when the other end is gone."""
        socket.send_fds(self._sock, [msgspec.json.encode(message)], descriptors)

    def receive(self, patience: float | None = None) -> Message | None:
        """The next message; None when the other end is gone or talks nonsense.

        Raises TimeoutError after `patience` seconds.
        """
        self._drop()
        self._sock.settimeout(patience)
        try:
            raw, self._came, _, _ = socket.recv_fds(self._sock, _LARGEST, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise TimeoutError from None
        except ConnectionError:
            return None
        try:
            return _decoder.decode(raw) if raw else None
        except msgspec.MsgspecError:  # an engine that says what none of ours says is as good as gone
            return None

    def close(self) -> None:
        """Hang up."""
        self._drop()
        self._sock.close()

    def _drop(self) -> None:
        for descriptor in self.descriptors():
            os.close(descriptor)


def channel_pair() -> tuple[Channel, Channel]:
    """Two connected ends."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)


def _unheard(_number: int, _frame: object) -> None:
    """A thread that a library made doesn't block SIGIO, whose default would be our death."""
