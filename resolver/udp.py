"""The UDP listener: datagrams off a socket, replies back on it.

Law: a shell. It moves bytes and builds the `Flow` that they came on; what they mean is decided elsewhere. What has
arrived together is served together: one look at who speaks, one system call for all replies that are ready.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, NamedTuple, Protocol

from policy.values import Flow, Proto
from resolver.batch import SLOTS, Batch
from resolver.core import Counters, Pending
from resolver.repeats import Repeat, Told
from resolver.wire import MAX_QUERY, OWN_SIZE

_READ: Final = MAX_QUERY + 1  # one octet more than allowed, so that what is too long shows

type Send = Callable[[bytes], None]
type Kind = Callable[[socket.socket, int], Batch]  # the socket, a slot's room


class Server(Protocol):
    """What a listener needs of the resolver."""

    counters: Counters

    def told(self, client: Flow, now: float) -> Told | None: ...
    def take(self, data: bytes, client: Flow, now: float, told: Told | None = None) -> bytes | Pending | None: ...
    def forward(self, pending: Pending, send: Send) -> None: ...
    def clock(self) -> float: ...


class _Speaker(NamedTuple):
    """Whoever sends from one address and port; without `told` nobody knows who that is."""

    client: Flow
    name: bytes
    told: Told | None

    @property
    def ready(self) -> dict[bytes, Repeat]:
        return {} if self.told is None else self.told.ready


class UdpListener:
    """Serves one bound, non-blocking UDP socket, and owns it. One with every address wants a batch of its `kind`."""

    def __init__(
        self, sock: socket.socket, server: Server, loop: asyncio.AbstractEventLoop, kind: Kind = Batch
    ) -> None:
        self._socket, self._server, self._loop = sock, server, loop
        self._port = int(sock.getsockname()[1])
        self._batch, self._late = kind(sock, _READ), kind(sock, OWN_SIZE)
        self._outbox: list[tuple[bytes, bytes]] = []  # names and replies
        self._flow = lru_cache(maxsize=1024)(self._flow_of)  # there are few clients; parsing takes microseconds
        loop.add_reader(sock, self._readable)

    def stop_reading(self) -> None:
        self._loop.remove_reader(self._socket)

    def close(self) -> None:
        self.stop_reading()
        self.flush()
        self._socket.close()

    def _readable(self) -> None:
        """Serve until nothing is left, but no more at once than lets others have the loop soon."""
        left = SLOTS
        while left and (count := self._batch.receive(left)):
            self._serve(count, self._server.clock())
            left -= count
        self.flush()

    def _serve(self, count: int, now: float) -> None:
        """Answer what is in the first `count` slots. A repeated reply costs a look-up and no call of ours."""
        batch, first, room = self._batch, 0, self._batch.room
        octets, replies = batch.octets, batch.replies
        speaker = self._speaker(batch.name(0), now)
        ready, several = speaker.ready, not batch.is_of_one(count)
        for slot, size in enumerate(batch.sizes[:count].tolist()):
            at = slot * room
            if several and (name := batch.name(slot)) != speaker.name:
                speaker = self._speaker(name, now)
                ready = speaker.ready
            repeat = ready.get(bytes(octets[at + 2 : at + size]))
            if repeat is not None:
                repeat.times += 1
                octets[at + 2 : at + repeat.size] = repeat.rest  # the id stays where it is
                replies[slot] = repeat.size
            elif reply := self._ask(bytes(octets[at : at + size]), speaker, now):
                octets[at : at + len(reply)] = reply
                replies[slot] = len(reply)
            else:
                if slot > first:
                    self._send(batch, first, slot - first)
                first = slot + 1
        self._send(batch, first, count - first)

    def _speaker(self, name: bytes, now: float) -> _Speaker:
        client = self._flow(name)
        return _Speaker(client, name, self._server.told(client, now))

    def _flow_of(self, name: bytes) -> Flow:
        return Flow(Proto.UDP, *self._batch.peer(name), self._batch.here(name), self._port)

    def _ask(self, data: bytes, speaker: _Speaker, now: float) -> bytes | None:
        """The reply, if there is one at once."""
        result = self._server.take(data, speaker.client, now, speaker.told)
        if isinstance(result, Pending):
            self._server.forward(result, partial(self.put_out, speaker.name))
            return None
        return result

    def _send(self, batch: Batch, first: int, count: int) -> None:
        """The replies of these slots. What the socket has no room for, or that has no way back, is lost: the client
        asks again, or is gone."""
        while count > 0:
            try:
                taken = batch.send(first, count)
            except OSError:
                taken = 0
            if taken < count:
                self._server.counters.unsent += 1
                taken += 1
            first, count = first + taken, count - taken

    def put_out(self, name: bytes, reply: bytes) -> None:
        """To be sent with whatever else is ready in the same turn."""
        self._outbox.append((name, reply))

    def flush(self) -> None:
        """Send what was put out: whoever serves one turn of the loop calls this at its end."""
        outbox, self._outbox = self._outbox, []
        for begin in range(0, len(outbox), SLOTS):
            chunk = outbox[begin : begin + SLOTS]
            for slot, (name, reply) in enumerate(chunk):
                self._late.put(slot, name, reply)
            self._send(self._late, 0, len(chunk))
