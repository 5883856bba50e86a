"""The proxy as the supervisor sees it: a keeper, a port, and what programs are to be told.

Law: makes what a keeper is given, forks it, and ends it; waits for nothing but its first word. What the keeper does
stands in `keeper`, which the supervisor never imports: it would be three times its size.
"""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from functools import partial
from time import monotonic, time
from types import TracebackType
from typing import Self

from dnsfw.channel import Channel, Failed, Serving, channel_pair
from dnsfw.errors import SetupError
from dnsfw.journal.lifecycle import Life, Turn
from dnsfw.machine import child
from dnsfw.machine.namespaces import children_in_new_pid_namespace
from dnsfw.place import Place
from dnsfw.restarts import Restarts
from dnsfw.terminal import complain

_PORTS = range(53086, 53118)  # the first free one
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_BACKLOG = 512
_STARTS_WITHIN = 30.0
_RENEWED_AFTER = 20 * 3600.0  # seconds; an authority lives for 24 hours (proxy/authority.py)


class Proxy:
    """A keeper at work, or about to be; a context manager that ends it. `hosts` are those that it is for, `port` is
    where clients are redirected to."""

    def __init__(self, hosts: tuple[str, ...], place: Place, engine: Channel) -> None:
        """`engine` is the keeper's end of its conversation with engines. Raises SetupError."""
        self.hosts = hosts
        self._place = place
        self._engine = engine
        self._restarts = Restarts()
        self._death: Life | None = None  # the last keeper's, for the next one to tell
        with place.inside():
            self._listeners = _listeners()
        self.port = int(self._listeners[0].getsockname()[1])
        self._begin()

    def _begin(self) -> None:
        self._channel, theirs = channel_pair()
        work = partial(_live, self.hosts, self._listeners, (self._engine, theirs), self._place, self._death)
        kept = [theirs.fileno(), self._engine.fileno(), *(one.fileno() for one in self._listeners)]
        with children_in_new_pid_namespace():
            self._process = child.fork(work, kept)
        theirs.close()
        self._death = None
        self._channel.signal_when_readable()
        self._began = monotonic()
        self._restarts.started(self._began)

    def await_serving(self) -> Serving:
        """What programs are to be told, once clients are served. Raises SetupError."""
        try:
            said = self._channel.receive(_STARTS_WITHIN)
        except TimeoutError:
            said = None
        if isinstance(said, Serving):
            return said
        if isinstance(said, Failed):
            raise SetupError(said.problem, said.remedy)
        raise SetupError("The proxy died while starting.", "This is a fault of dnsfw's; please report it.")

    def tend(self) -> Serving | None:
        """Start another keeper if this one died, or if its authority is about to; never waits. What the next one has
        for programs, when that is there. Proxies' deaths are the keeper's business."""
        wait = self._restarts.wait(monotonic())
        if wait is None:
            return self._look()
        if wait == 0:
            self._begin()
        return None

    def _look(self) -> Serving | None:
        how = self._process.ended()
        if how is not None:
            self._channel.close()
            self._restarts.died(how, monotonic())
            self._death = Life(Turn.DIED, time(), "proxy", f"{how}, with its keeper")
            complain(f"the proxy's keeper died ({how}); URL rules deny until there is another.")
            return None
        if monotonic() - self._began > _RENEWED_AFTER:
            self._channel.close()
            self._process.end(0)
            self._begin()
            return None
        try:
            said = self._channel.receive(0)
        except TimeoutError:
            return None
        return said if isinstance(said, Serving) else None

    def patience(self) -> float | None:
        """Seconds until `tend` has something to do by itself."""
        wait = self._restarts.wait(monotonic())
        return max(0.0, self._began + _RENEWED_AFTER - monotonic()) if wait is None else wait

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        self._process.end(0)  # R9: nobody waits for its connections
        for one in self._listeners:
            one.close()


def _live(
    hosts: tuple[str, ...],
    listeners: tuple[socket.socket, ...],
    conversations: tuple[Channel, Channel],
    place: Place,
    before: Life | None,
) -> int:
    # Imported by the keeper alone: the supervisor stays small.
    from dnsfw.inspection.keeper import KeeperConfig, keep  # noqa: PLC0415

    return keep(KeeperConfig(hosts, listeners, *conversations, place, before))


def _listeners() -> tuple[socket.socket, ...]:
    """On the first free port of ours. Raises SetupError."""
    for port in _PORTS:
        try:
            return _listen(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise SetupError(f"The proxy can't listen on loopback: {error.strerror}.") from error
    raise SetupError(f"All ports from {_PORTS[0]} to {_PORTS[-1]} are taken.", "Free one of them.")


def _listen(port: int) -> tuple[socket.socket, ...]:
    with ExitStack() as unfinished:
        made = []
        for family, host in _LOOPBACK:
            one = unfinished.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, port))
            one.listen(_BACKLOG)
            made.append(one)
        unfinished.pop_all()
        return tuple(made)
