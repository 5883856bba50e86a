"""Protocol Buffers' wire format (protobuf.dev, "Encoding"): text written, fields of text and messages read.

Law: pure, and knows no message. Without a library: of containerd's messages we read a dozen fields, all of one wire
type, and `protobuf` would bring an extension module and code that its own compiler makes for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIDTHS: Final = {_FIXED64: 8, _FIXED32: 4}
_VARINT_OCTETS = 10  # at most, for 64 bits


def text(number: int, value: str) -> bytes:
    """One field, of text shorter than 128 octets. `number` is at most 15."""
    raw = value.encode()
    if len(raw) > 0x7F:
        raise ValueError(f"a text of {len(raw)} octets")
    return bytes((number << 3 | _LENGTH, len(raw))) + raw


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field that has a length: texts, octets, messages; others are passed over. Raises
    ValueError for what is no message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
            continue
        if kind == _LENGTH:
            length, at = _varint(message, at)
        elif (length := _WIDTHS.get(kind, -1)) < 0:
            raise ValueError(f"a field of wire type {kind}")
        if at + length > len(message):
            raise ValueError("a field that is longer than its message")
        if kind == _LENGTH:
            yield tag >> 3, message[at : at + length]
        at += length


def last(message: bytes) -> dict[int, bytes]:
    """The same as a table: of a field that comes again the last counts, as the format has it for single ones."""
    return dict(fields(message))


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    number = 0
    for place, octet in enumerate(message[at : at + _VARINT_OCTETS]):
        number |= (octet & 0x7F) << 7 * place
        if octet < 0x80:
            return number, at + place + 1
    raise ValueError("a number without an end")
