"""The name that a TLS client asks for.

Law: pure. Any octets give a ClientHello, None (there must be more to come) or a ClientHelloError, and what two readers
could read differently is refused. Nothing behind the ClientHello is looked at. Sources: RFC 8446 sections 4.1.2, 4.2
and 5.1, which hold for TLS 1.2 too (RFC 5246 section 7.4.1.2); RFC 6066 section 3; RFC 9001 section 4.1.3 for QUIC,
which has no records.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from firewall.opening import MOST
from policy.names import InvalidNameError, canonical

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_RECORD_HEADER, _MESSAGE_HEADER = 5, 4
_EXTENSION: Final = Struct("!HH")  # type and length (RFC 8446 section 4.2)
_PAST_END: Final = "a length reaches past the end"
_RECORD_MOST: Final = 1 << 14


class ClientHelloError(Exception):
    """Not a ClientHello that can be read without ambiguity. The message says what is wrong with it."""


class _EndError(ClientHelloError):
    """There is less than was said."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """`name` is the server's, canonical (policy.names); None where the client doesn't say."""

    name: str | None


def read_client_hello(data: bytes) -> ClientHello | None:
    """The ClientHello that a stream begins with; None while it isn't whole. Raises ClientHelloError, and soon.

    Where it is encrypted (ECH, RFC 9849), the outer one's name counts.
    """
    message, whole = _message(data)
    return _client_hello(_Reader(message[_MESSAGE_HEADER:])) if whole else None


def read_handshake(message: bytes) -> ClientHello | None:
    """The same of a handshake message without records, as QUIC has it (RFC 9001 section 4.1.3)."""
    size = _message_size(message)
    if size is None or len(message) < size:
        return None
    return _client_hello(_Reader(message[_MESSAGE_HEADER:size]))


def name_so_far(data: bytes) -> str | None:
    """The name in what has come of a ClientHello, if it has come. Raises ClientHelloError.

    Some servers choose a host by it before they have the rest.
    """
    body = _Reader(_message(data)[0][_MESSAGE_HEADER:])
    try:
        _skip_to_extensions(body)
        body.take(2)  # the length of them all
        while True:
            kind, extension = body.number(2), body.vector(2)
            if kind == _SERVER_NAME:
                break
    except _EndError:
        return None
    return _host_name(_Reader(extension))


def _message(data: bytes) -> tuple[bytes, bool]:
    """What there is of the first handshake message, out of as many records as it takes (RFC 8446 section 5.1); and
    whether that is all of it."""
    message, size, at = bytearray(), None, 0
    while len(message) != size:
        length = _record_length(data[at : at + _RECORD_HEADER])
        if length is None:
            return bytes(message), False
        at += _RECORD_HEADER
        end = len(message) + length
        message += data[at : at + length]
        at += length
        size = _message_size(message) if size is None else size
        if size is not None and end > size:
            raise ClientHelloError("more in the record than a ClientHello")
        if at > len(data):
            return bytes(message), False
    return bytes(message), True


def _record_length(header: bytes) -> int | None:
    """None while the header isn't whole."""
    if header and header[0] != _HANDSHAKE:
        raise ClientHelloError("not a TLS handshake")
    if header[1:] and header[1] != 3:  # SSL 3.0 to TLS 1.3; the minor version says nothing
        raise ClientHelloError(f"TLS record of version {header[1]}")
    if len(header) < _RECORD_HEADER:
        return None
    length = int.from_bytes(header[3:])
    if not 0 < length <= _RECORD_MOST:
        raise ClientHelloError(f"TLS record of {length} octets")
    return length


def _message_size(start: bytes | bytearray) -> int | None:
    """With its header; None while that isn't whole."""
    if start and start[0] != _CLIENT_HELLO:
        raise ClientHelloError(f"handshake message of type {start[0]}")
    if len(start) < _MESSAGE_HEADER:
        return None
    size = _MESSAGE_HEADER + int.from_bytes(start[1:_MESSAGE_HEADER])
    if size > MOST:
        raise ClientHelloError(f"ClientHello of {size} octets")
    return size


def _client_hello(body: _Reader) -> ClientHello:
    _skip_to_extensions(body)
    extensions = _extensions(body.vector(2)) if body else {}
    body.finish()
    named = extensions.get(_SERVER_NAME)
    return ClientHello(None if named is None else _host_name(_Reader(named)))


def _skip_to_extensions(body: _Reader) -> None:
    body.take(2 + 32)  # legacy_version, random
    body.vector(1)  # legacy_session_id
    body.vector(2)  # cipher_suites
    body.vector(1)  # legacy_compression_methods


def _extensions(block: bytes) -> dict[int, bytes]:
    """Some twenty of them in nearly every hello, so in one loop."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(block):
        if at + _EXTENSION.size > len(block):
            raise _EndError(_PAST_END)
        kind, size = _EXTENSION.unpack_from(block, at)
        at += _EXTENSION.size + size
        if at > len(block):
            raise _EndError(_PAST_END)
        if kind in found:
            raise ClientHelloError(f"extension {kind} twice")
        found[kind] = block[at - size : at]
    return found


def _host_name(extension: _Reader) -> str:
    """There is one type of name, and one name of a type (RFC 6066 section 3)."""
    names = _Reader(extension.vector(2))
    extension.finish()
    kind = names.number(1)
    raw = names.vector(2)
    names.finish()
    if kind != _HOST_NAME or not raw or raw.endswith(b"."):
        raise ClientHelloError("not the name of a host")
    try:
        return canonical(raw.decode("ascii"))
    except (UnicodeDecodeError, InvalidNameError) as error:
        raise ClientHelloError(f"not the name of a host: {error}") from error


class _Reader:
    """Octets that are used up from the front; true while there are any."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise _EndError(_PAST_END)
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, octets: int) -> int:
        return int.from_bytes(self.take(octets))

    def vector(self, octets: int) -> bytes:
        """A length in so many octets, and as much data (RFC 8446 section 3.4). Most of what is read is one of these."""
        start = self._at + octets
        end = start + int.from_bytes(self._data[self._at : start])
        if end > len(self._data):
            raise _EndError(_PAST_END)
        self._at = end
        return self._data[start:end]

    def finish(self) -> None:
        if self:
            raise ClientHelloError("octets behind the end")
