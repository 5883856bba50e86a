"""What the engine knows of containers by now.

Law: never waits. A container that isn't known yet is asked about, and has no image meanwhile: no rule that wants one
opens anything for it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Self

import msgspec
from cachetools import LRUCache, TTLCache

from bpf.container import Container
from bpf.source import Description
from dnsfw.containers.engine import Engine
from dnsfw.containers.talk import LARGEST, Answer, Question
from dnsfw.machine import child
from dnsfw.machine.privilege import User
from policy.values import Owner

_KNOWN = 4_096  # containers
_ASKED_AGAIN = 2.0  # seconds
_WAITING = 256  # questions
_PROMPT = 1.0  # seconds within which an engine answers, if it will
_ENDS_WITHIN = 1.0


class Containers:
    """The nearer end of a conversation with the inquirer. `clock` is monotonic seconds."""

    def __init__(self, channel: socket.socket, clock: Callable[[], float]) -> None:
        self._channel = channel
        self._channel.setblocking(False)  # noqa: FBT003 - the library's own
        self._known: LRUCache[str, Description] = LRUCache(_KNOWN)
        self._asked: TTLCache[str, None] = TTLCache(_WAITING, _ASKED_AGAIN, clock)
        self._first_asked: LRUCache[str, float] = LRUCache(_KNOWN)
        self._clock = clock

    def fileno(self) -> int:
        """For event loops: `hear` when it is readable."""
        return self._channel.fileno()

    def describe(self, container: Container) -> Description | None:
        """What its engine says; None while that isn't known."""
        if (known := self._known.get(container.id)) is not None:
            return known
        if container.id not in self._asked:
            self._asked[container.id] = None
            self._first_asked.setdefault(container.id, self._clock())
            self._ask(container)
        return None

    def awaits(self, owner: Owner) -> bool:
        """Was it asked for the first time about this one's container just now? Then the answer is on its way."""
        if not owner.container or owner.container in self._known:
            return False
        return self._clock() - self._first_asked.get(owner.container, -_PROMPT) < _PROMPT

    def hear(self) -> bool:
        """Take in what was told since; False if nothing will be told any more."""
        try:
            while raw := self._channel.recv(LARGEST):
                answer = msgspec.json.decode(raw, type=Answer)
                self._known[answer.id] = Description(answer.image, answer.name)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def _ask(self, container: Container) -> None:
        try:
            self._channel.send(msgspec.json.encode(Question(container.id, container.engine)))
        except OSError:  # full, or gone: it stays unknown
            return


class Inquiry:
    """An inquirer at work, until `close`: of these engines, or of all that we know. Make it as root, while there is one
    thread."""

    def __init__(self, user: User, clock: Callable[[], float], engines: Sequence[Engine] | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = child.fork(lambda: _inquire(theirs, user, engines), [theirs.fileno()])
        theirs.close()
        self._ours = ours
        self.containers = Containers(ours, clock)
        self.pid = self._child.pid

    def close(self) -> None:
        self._ours.close()
        self._child.end(_ENDS_WITHIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _inquire(channel: socket.socket, user: User, engines: Sequence[Engine] | None) -> int:
    from dnsfw.containers import inquirer  # noqa: PLC0415 - HTTP and gRPC, which its parent has no use for

    return inquirer.run(channel, user, inquirer.ENGINES if engines is None else engines)
