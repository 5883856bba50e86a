"""The name that a QUIC client asks for.

Law: sans-IO: datagrams in, the ClientHello of their Initial packets out, or None while there must be more to come, or a
QuicError. What can't be opened with the keys that anybody can derive is refused. Sources: RFC 9000 sections 12.2, 17.2
and 19; RFC 9001 section 5; RFC 9369.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from firewall.clienthello import ClientHello, read_handshake
from firewall.opening import Opening

if TYPE_CHECKING:
    from firewall.quickeys import Keys

VERSION_1: Final = 0x0000_0001
VERSION_2: Final = 0x6B33_43CF
_INITIAL: Final = {VERSION_1: 0, VERSION_2: 1}  # of the types of a long header (RFC 9369 section 3.2)
_RETRY: Final = {VERSION_1: 3, VERSION_2: 0}
_LONG: Final = 0x80
_CONNECTION_ID_MOST: Final = 20
_LEAST: Final = 1200  # octets of a datagram that opens a connection (RFC 9000 section 14.1)
_KEYS_MOST: Final = 4  # connections tried on one flow at a time; a Retry makes the second (RFC 9000 section 17.2.5)
_REPEATED: Final = 4096  # octets of a hello that may come again, since some of it may have been lost on its way
# What Initial packets may have (RFC 9000 section 12.4).
_PADDING, _PING, _ACK, _ACK_ECN, _CRYPTO, _CLOSE = 0x00, 0x01, 0x02, 0x03, 0x06, 0x1C


class QuicError(Exception):
    """Datagrams that can't be read without ambiguity. The message says what is wrong with them."""


def looks_like_quic(data: bytes, port: int) -> bool:
    """Does a connection begin here? On HTTP/3's port every long header is taken for one."""
    return bool(data and data[0] & _LONG) and (port == 443 or int.from_bytes(data[1:5]) in _INITIAL)


@dataclass(frozen=True, slots=True)
class _Packet:
    """A packet with a long header: from `start` to `end` in its datagram, its number at `number`."""

    version: int
    initial: bool
    destination: bytes
    start: int
    number: int
    end: int


class _Connection:
    """A connection that a client has begun: its keys, and what its handshake has said until that was whole. From then
    on, of the `size` octets of that, the first."""

    __slots__ = ("keys", "opening", "said", "size")

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.opening: Opening | None = Opening(0)
        self.said = b""
        self.size = 0


class Greetings:
    """The connections that begin on one flow. Bounded, like each one's handshake."""

    def __init__(self) -> None:
        self._connections: dict[tuple[int, bytes], _Connection] = {}
        self._heard: list[ClientHello] = []  # while another's hello isn't whole

    def add(self, datagram: bytes) -> list[ClientHello] | None:
        """The hellos that are whole with this datagram and were not before; None while one on this flow isn't, since
        what is said of the flow is said of all that waits.

        An empty list: it belongs to what was said before. Raises QuicError, ClientHelloError and OpeningError.
        """
        initials = [self._opened(datagram, packet) for packet in _packets(datagram) if packet.initial]
        if not initials and not self._connections:
            raise QuicError("no Initial packet has come before")
        self._heard += [hello for connection, frames in initials if (hello := _hear(connection, frames)) is not None]
        if any(connection.opening for connection in self._connections.values()):
            return None
        hellos, self._heard = self._heard, []
        return hellos

    def _opened(self, datagram: bytes, packet: _Packet) -> tuple[_Connection, bytes]:
        """As its receiver would: by the connection id, for which the packet may be a connection's first; or as one more
        of a connection whose server has chosen another id since."""
        from firewall.quickeys import client_keys  # noqa: PLC0415 - costly, and QUIC may never come

        key = (packet.version, packet.destination)
        known = self._connections.get(key)
        fresh = known or _Connection(client_keys(*key))
        frames = _open(datagram, packet, fresh.keys)
        if frames is not None:
            if known is None:
                self._begin(key, fresh, datagram)
            return fresh, frames
        for (version, chosen), connection in self._connections.items():
            # A server may go on in another version (RFC 9368 section 2.3), with keys by the id of before.
            keys = connection.keys if version == packet.version else client_keys(packet.version, chosen)
            frames = _open(datagram, packet, keys)
            if frames is not None:
                return connection, frames
        raise QuicError("an Initial packet that its own keys don't open")

    def _begin(self, key: tuple[int, bytes], connection: _Connection, datagram: bytes) -> None:
        if len(datagram) < _LEAST:
            raise QuicError(f"a connection that begins in {len(datagram)} octets")
        if len(self._connections) >= _KEYS_MOST:
            oldest = next(iter(self._connections))
            if self._connections[oldest].opening:
                raise QuicError("too many connections that begin at a time")
            del self._connections[oldest]
        self._connections[key] = connection


def _hear(connection: _Connection, frames: bytes) -> ClientHello | None:
    """The hello, if it is whole with these frames and was not before."""
    pieces = list(_handshake(frames))
    if connection.opening is None:
        _compare(connection, pieces)
        return None
    said = b""
    for offset, data in pieces:
        said = connection.opening.add(offset, data)
    hello = read_handshake(said)
    if hello is not None:
        connection.opening, connection.said, connection.size = None, said[:_REPEATED], len(said)
    return hello


def _compare(connection: _Connection, pieces: Iterable[tuple[int, bytes]]) -> None:
    """What was heard need not have arrived (its hop limit was low, its number was used before): then its receiver would
    take the next version of it."""
    for offset, data in pieces:
        again = data[: max(0, connection.size - offset)]
        if again != connection.said[offset : offset + len(again)]:
            raise QuicError("two versions of the same octets")


def _packets(datagram: bytes) -> Iterator[_Packet]:
    """Those with long headers, one behind the other; a short header's packet takes the rest (RFC 9000 section 12.2)."""
    start = 0
    while start < len(datagram) and datagram[start] & _LONG:
        packet = _packet(_Reader(datagram, start), start)
        yield packet
        start = packet.end


def _packet(reader: _Reader, start: int) -> _Packet:
    first, version = reader.number(1), reader.number(4)
    if version not in _INITIAL:
        raise QuicError(f"QUIC of version {version:#x}")
    destination = reader.take(_connection_id(reader))
    reader.take(_connection_id(reader))
    kind = first >> 4 & 3
    if kind == _RETRY[version]:
        raise QuicError("a Retry packet, which is a server's")
    if kind == _INITIAL[version]:
        reader.take(reader.varint())  # its token
    length = reader.varint()
    number = reader.at
    reader.take(length)
    return _Packet(version, kind == _INITIAL[version], destination, start, number, reader.at)


def _connection_id(reader: _Reader) -> int:
    length = reader.number(1)
    if length > _CONNECTION_ID_MOST:
        raise QuicError(f"a connection id of {length} octets")
    return length


def _open(datagram: bytes, packet: _Packet, keys: Keys) -> bytes | None:
    """The frames of a packet; None if these aren't its keys. The number is whole where it is a connection's first, and
    short enough for those that follow soon (RFC 9001 section 5.4.1)."""
    sample = datagram[packet.number + 4 : packet.number + 20]
    if packet.number + 20 > packet.end:
        raise QuicError("a packet too short for a sample")
    mask = keys.mask(sample)
    first = datagram[packet.start] ^ mask[0] & 0x0F
    size = (first & 3) + 1
    hidden = datagram[packet.number : packet.number + size]
    number = bytes(one ^ other for one, other in zip(hidden, mask[1:], strict=False))
    header = bytes([first]) + datagram[packet.start + 1 : packet.number] + number
    return keys.open(int.from_bytes(number), datagram[packet.number + size : packet.end], header)


def _handshake(frames: bytes) -> Iterator[tuple[int, bytes]]:
    """Pieces of the handshake and where they belong, in whatever order they are in."""
    reader = _Reader(frames, 0)
    while reader.left:
        kind = reader.varint()
        if kind == _PADDING:
            reader.skip_zeros()
        elif kind == _PING:
            continue
        elif kind == _CRYPTO:
            offset = reader.varint()
            yield offset, reader.take(reader.varint())
        elif kind in (_ACK, _ACK_ECN):
            _skip_ack(reader, ecn=kind == _ACK_ECN)
        elif kind == _CLOSE:
            reader.varint(), reader.varint()
            reader.take(reader.varint())
        else:
            raise QuicError(f"a frame of type {kind:#x} in an Initial packet")


def _skip_ack(reader: _Reader, *, ecn: bool) -> None:
    """RFC 9000 section 19.3."""
    reader.varint(), reader.varint()  # largest, delay
    ranges = reader.varint()
    reader.varint()  # first range
    for _ in range(2 * min(ranges, reader.left)):
        reader.varint()
    for _ in range(3 if ecn else 0):
        reader.varint()


class _Reader:
    """Octets that are used up from a place on."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    @property
    def left(self) -> int:
        return len(self._data) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise QuicError("a length reaches past the end")
        self.at += count
        return self._data[self.at - count : self.at]

    def skip_zeros(self) -> None:
        """Those that come next: of padding there is much."""
        self.at = len(self._data) - len(self._data[self.at :].lstrip(b"\0"))

    def number(self, octets: int) -> int:
        return int.from_bytes(self.take(octets))

    def varint(self) -> int:
        """RFC 9000 section 16."""
        first = self.number(1)
        more = (1 << (first >> 6)) - 1
        return (first & 0x3F) << 8 * more | self.number(more)
