"""What the proxy and the engine's gate say to each other.

Law: typed messages, MessagePack, each behind its length (four octets, big-endian) on a Unix stream socket. The proxy
speaks first, with its VERSION; the gate answers every question, in order, and says nothing unasked. Whoever reads what
he can't read hangs up, and the end of the conversation refuses whatever isn't answered yet. Of a URL only what is
judged is said: no query, no header, no octet of a body.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

VERSION = 1
LARGEST = 1 << 17  # octets of a message: more than the longest request head that the proxy reads
_PREFIX = 4


class MessageError(Exception):
    """Not a message of this conversation."""


class Course(StrEnum):
    """What becomes of a TLS connection once its ClientHello is known."""

    DECRYPT = "decrypt"
    TUNNEL = "tunnel"  # untouched, to where it was sent
    REFUSE = "refuse"


class Trouble(StrEnum):
    """What a connection ended by, where no rule ended it. The journal uses these words."""

    PINNED = "pinned"  # the client trusts other authorities than this system's: it refused our certificate
    UNTRUSTED = "untrusted"  # the server's certificate can't be verified, or its TLS is too old
    CLIENT_CERTIFICATE = "client-certificate"  # the server wants one of the client, which only the client could show
    FAULT = "fault"  # an error of our own


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Proxy, first of all."""

    version: int


class Opened(msgspec.Struct, frozen=True, tag=True):
    """Proxy: a client is here. `connection` is the proxy's number for it, never used again; the TCP flow as the client
    sees it, so `dst` is where it meant to go. Not answered."""

    connection: int
    src: str
    sport: int
    dst: str
    dport: int


class Closed(msgspec.Struct, frozen=True, tag=True):
    """Proxy: that client is gone. Not answered."""

    connection: int


class Greeted(msgspec.Struct, frozen=True, tag=True):
    """Proxy: a client wants TLS, and this is its ClientHello, in one record. Read by the gate, so that there is one
    reader of such things. Answered by Steered."""

    connection: int
    hello: bytes


class Asked(msgspec.Struct, frozen=True, tag=True):
    """Proxy: may this request pass? `host` as the client wrote it, `path` the raw target without its query. Answered by
    Judged."""

    connection: int
    scheme: str
    host: str
    method: str
    path: str


class Unreadable(msgspec.Struct, frozen=True, tag=True):
    """Proxy: a request can't be read without ambiguity, and `problem` says why. Answered by Judged."""

    connection: int
    problem: str


class Reported(msgspec.Struct, frozen=True, tag=True):
    """Proxy: what else a connection came to. `detail` is somebody else's words, or an error's. Not answered."""

    connection: int
    trouble: Trouble
    detail: str


class Refusal(msgspec.Struct, frozen=True):
    """For the person behind a client: what was denied, why, and the policy line that would allow it, "" where none
    would. `reason` is the journal's word."""

    what: str
    why: str
    line: str
    reason: str


class Steered(msgspec.Struct, frozen=True, tag=True):
    """Gate: do this with the connection. `name` is the server's, canonical, "" if the client names none. `insecure`:
    the server's certificate need not be verified. `refusal` is there where the course is REFUSE."""

    course: Course
    name: str = ""
    insecure: bool = False
    refusal: Refusal | None = None


class Judged(msgspec.Struct, frozen=True, tag=True):
    """Gate: the request may pass, where there is no refusal."""

    refusal: Refusal | None = None


type Question = Greeted | Asked | Unreadable
type FromProxy = Hello | Opened | Closed | Greeted | Asked | Unreadable | Reported
type FromGate = Steered | Judged

_encoder = msgspec.msgpack.Encoder()
_from_proxy: msgspec.msgpack.Decoder[FromProxy] = msgspec.msgpack.Decoder(
    Hello | Opened | Closed | Greeted | Asked | Unreadable | Reported
)
_from_gate: msgspec.msgpack.Decoder[FromGate] = msgspec.msgpack.Decoder(Steered | Judged)


def encode(message: FromProxy | FromGate) -> bytes:
    """The message behind its length. Raises MessageError for one that is too large."""
    body = _encoder.encode(message)
    if len(body) > LARGEST:
        raise MessageError(f"a message of {len(body)} octets")
    return len(body).to_bytes(_PREFIX) + body


def read_from_proxy(body: bytes) -> FromProxy:
    """Raises MessageError."""
    return _decoded(_from_proxy, body)


def read_from_gate(body: bytes) -> FromGate:
    """Raises MessageError."""
    return _decoded(_from_gate, body)


def _decoded[T](decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise MessageError(str(error)) from error


class Frames:
    """Cuts a stream into messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def take(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are whole now. Raises MessageError for one that is too large."""
        self._rest += data
        while len(self._rest) >= _PREFIX:
            size = int.from_bytes(self._rest[:_PREFIX])
            if size > LARGEST:
                raise MessageError(f"a message of {size} octets")
            end = _PREFIX + size
            if len(self._rest) < end:
                return
            body = bytes(self._rest[_PREFIX:end])
            del self._rest[:end]
            yield body
