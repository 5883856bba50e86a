"""What the supervisor and the engine say to each other.

Law: typed messages over a SOCK_SEQPACKET pair, one datagram each. The end of either side is the end of the
conversation, which both must expect at any time.
"""

from __future__ import annotations

import socket
from typing import Literal

import msgspec

_LARGEST = 1 << 18  # more than a socket takes at once (net.core.wmem_default): no summary is cut


class Listening(msgspec.Struct, frozen=True, tag=True):
    """Engine: my sockets are bound; put the table in force."""

    resolver_port: int
    queue: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Engine: everything that is asked is answered from now on."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Engine: I can't start."""

    problem: str
    remedy: str
    exit_status: int


class Finish(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the command has ended; write everything down, report, go."""


class Finished(msgspec.Struct, frozen=True, tag=True):
    """Engine: it is written."""

    denied: int
    summary: str


class Wanted(msgspec.Struct, frozen=True, tag=True):
    """Engine: somebody who may asks the supervisor for this (dnsfw/control)."""

    what: Literal["stop", "sudo-on", "sudo-off"]


type Message = Listening | Ready | Failed | Finish | Finished | Wanted

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Listening | Ready | Failed | Finish | Finished | Wanted)


class Channel:
    """One end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        """For event loops."""
        return self._sock.fileno()

    def send(self, message: Message) -> None:
        """Raises OSError when the other end is gone."""
        self._sock.send(msgspec.json.encode(message))

    def receive(self, patience: float | None = None) -> Message | None:
        """The next message; None when the other end is gone. Raises TimeoutError after `patience` seconds."""
        self._sock.settimeout(patience)
        try:
            raw = self._sock.recv(_LARGEST)
        except ConnectionError:
            return None
        return _decoder.decode(raw) if raw else None

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


def channel_pair() -> tuple[Channel, Channel]:
    """Two connected ends."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)
