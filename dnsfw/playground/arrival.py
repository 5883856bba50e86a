"""What arrived on the internet's side, and the book it is kept in.

Law: values and a bounded book; no sockets. The book is the demo's only judge: what a client says of itself is
worth nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_ARRIVALS = 20_000
MAX_PAYLOAD = 2048

type Endpoint = tuple[str, int]  # address text and port, 0 where there is none


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something that one of the internet's servers, or the tap on its wire, was given.

    `way` says which: dns-udp, dns-tcp, dot, doh, https, http, udp, tcp, frame. `payload` is what was said, cut at
    MAX_PAYLOAD bytes; of TLS what the server read after decryption, of a frame all of it.
    """

    way: str
    source: Endpoint
    destination: Endpoint
    payload: bytes

    def carries(self, token: str) -> bool:
        """Whether `token` (hexadecimal text) is in the payload, spelled out in any case or as raw bytes."""
        return token.lower().encode() in self.payload.lower() or bytes.fromhex(token) in self.payload

    def to_json(self) -> dict[str, Any]:
        return {
            "way": self.way,
            "source": list(self.source),
            "destination": list(self.destination),
            "payload": self.payload.hex(),
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Arrival:
        source, destination = ((address, port) for address, port in (raw["source"], raw["destination"]))
        return cls(raw["way"], source, destination, bytes.fromhex(raw["payload"]))


class Book:
    """The latest MAX_ARRIVALS arrivals; each calls `notify`. `forgotten` counts those that it had no room for."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._arrivals: deque[Arrival] = deque(maxlen=MAX_ARRIVALS)
        self.forgotten = 0

    def record(self, way: str, source: Endpoint, destination: Endpoint, payload: bytes) -> None:
        if len(self._arrivals) == MAX_ARRIVALS:
            self.forgotten += 1
        self._arrivals.append(Arrival(way, source, destination, payload[:MAX_PAYLOAD]))
        self._notify()

    def with_token(self, token: str | None) -> list[Arrival]:
        """All that carry `token`, oldest first; without one simply all."""
        return [arrival for arrival in self._arrivals if token is None or arrival.carries(token)]

    def clear(self) -> None:
        self._arrivals.clear()
        self.forgotten = 0
