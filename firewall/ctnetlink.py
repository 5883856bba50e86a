"""What the kernel's list of live connections says, and what it is told: ctnetlink's messages.

Law: pure: octets in, values out, and the other way round. Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h,
nfnetlink.h, and ctnetlink_dump_tuples() for the order in which a tuple's attributes come. All numbers in attributes are
in network order.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from struct import Struct, error
from typing import Any, Final, NamedTuple

from policy.values import Flow, Proto, unpacked

_CTNETLINK: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK
NEW, GET, DELETE = _CTNETLINK | 0, _CTNETLINK | 1, _CTNETLINK | 2
ERROR, DONE = 2, 3  # NLMSG_…
REQUEST, DUMP = 0x001, 0x300
_HEADER: Final = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_FAMILY: Final = Struct("!BBH")  # nfgenmsg: family, version, resource
_CODE: Final = Struct("=i")
_ATTRIBUTE: Final = Struct("=HH")  # nlattr: length, type
_TYPES: Final = 0x3FFF  # the rest are flags: nested, in network order
_NESTED: Final = 0x8000
_TUPLE_ORIG, _MARK, _ID, _MARK_MASK = 1, 8, 12, 21  # CTA_…
_IP: Final = 1  # CTA_TUPLE_…
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4  # CTA_IP_…
_NUM, _SRC_PORT, _DST_PORT, _ECHO, _ECHO_TYPE, _ECHO_V6, _ECHO_V6_TYPE = 1, 2, 3, 4, 5, 7, 8  # CTA_PROTO_…
_READ: Final = (_TUPLE_ORIG, _MARK, _ID)
_WITH_PORTS: Final = (Proto.TCP, Proto.UDP)
_TOLD: Final = 128  # octets of what can't be read, in an error
_PACKED_V4: Final = 13  # octets of such a Flow.packed


class Tracked(NamedTuple):
    """A live connection: as its first packet was before any translation (Flow.packed), and its mark. `named` are the
    attributes that the kernel knows it by."""

    packed: bytes
    mark: int
    named: bytes

    @property
    def flow(self) -> Flow:
        return unpacked(self.packed)


def wanted(mark: int, mask: int) -> bytes:
    """Attributes of a question: connections whose mark has this value under `mask`."""
    return _number(_MARK, mark) + _number(_MARK_MASK, mask)


def flipped(bits: int) -> bytes:
    """Attributes of an order: these bits of a mark turn over, the others stay, whatever they are by then
    (ctnetlink_change_mark: what the mask leaves, exclusive or the mark)."""
    return _number(_MARK, bits) + _number(_MARK_MASK, 0)


def message(kind: int, flags: int, sequence: int, attributes: bytes) -> bytes:
    """A question about connections of all families."""
    return _message(kind, flags, sequence, socket.AF_UNSPEC, attributes)


def order(kind: int, sequence: int, tracked: Tracked, more: bytes) -> bytes:
    """An order about one connection. It is answered where it fails, and only there."""
    family = socket.AF_INET if len(tracked.packed) == _PACKED_V4 else socket.AF_INET6
    return _message(kind, REQUEST, sequence, family, tracked.named + more)


def messages(datagram: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Each one's type and sequence number, and where its body is: from, to. Raises OSError."""
    at = 0
    while at < len(datagram):
        size, kind, _, sequence, _ = _unpacked(_HEADER, datagram, at)
        if not _HEADER.size <= size <= len(datagram) - at:
            raise _unread(datagram)
        yield kind, sequence, at + _HEADER.size, at + size
        at += (size + 3) & ~3


def raise_if_failed(datagram: bytes, at: int) -> None:
    """For the body of an ERROR. A connection that is gone is no failure. Raises OSError."""
    (code,) = _CODE.unpack_from(datagram, at)
    if code not in (0, -errno.ENOENT):
        raise OSError(-code, "the kernel refuses", "ctnetlink")


class _Layout:
    """Where the attributes of a body are. Another body is laid out alike if all of their headers are the same."""

    def __init__(self, body: bytes) -> None:
        if len(body) < _FAMILY.size:
            raise _unread(body)
        headers = values = f"={_FAMILY.size}x"
        found = []
        at = _FAMILY.size
        while at < len(body):
            size, kind = _unpacked(_ATTRIBUTE, body, at)
            whole = (size + 3) & ~3
            if size < _ATTRIBUTE.size or at + whole > len(body):
                raise _unread(body)
            headers += f"4s{whole - _ATTRIBUTE.size}x"
            values += f"{whole}{'s' if kind & _TYPES in _READ else 'x'}"
            found += [kind & _TYPES] if kind & _TYPES in _READ else []
            at += whole
        self._kinds = found
        self._headers, self._values = Struct(headers), Struct(values)
        self._same = self._headers.unpack(body)

    def read(self, body: bytes) -> dict[int, bytes] | None:
        """The attributes that are read; None if it is laid out in another way. It has this one's size."""
        if self._headers.unpack(body) != self._same:
            return None
        return dict(zip(self._kinds, self._values.unpack(body), strict=True))


class Reader:
    """Reads connections. Nearly all are laid out like one before, and to walk along their attributes would take most
    of the time that a list takes."""

    def __init__(self) -> None:
        self._layouts: dict[int, _Layout] = {}  # by size

    def tracked(self, body: bytes) -> Tracked:
        """The connection that a message's body is about. Raises OSError for one that can't be read."""
        layout = self._layouts.get(len(body))
        said = None if layout is None else layout.read(body)
        if said is None:
            layout = self._layouts[len(body)] = _Layout(body)
            said = layout.read(body) or {}
        ends, mark = said.get(_TUPLE_ORIG, b""), said.get(_MARK, b"")  # a kernel may leave a mark of 0 out
        return Tracked(_packed(ends), int.from_bytes(mark[_ATTRIBUTE.size :]), ends + said.get(_ID, b""))


class _Shape:
    """A tuple of one family: each address behind what says that it is one, then the protocol, then, where it has them,
    the ports. `begins` tells it by its octets from the fourth to the eleventh."""

    def __init__(self, octets: int, src: int, dst: int) -> None:
        address = _ATTRIBUTE.size + octets
        self.begins = _ATTRIBUTE.pack(_ATTRIBUTE.size + 2 * address, _IP | _NESTED) + _ATTRIBUTE.pack(address, src)
        self._dst = _ATTRIBUTE.pack(address, dst)
        self._ends = Struct(f"=12x{octets}s4s{octets}s4x4sB")

    def read(self, ends: bytes) -> bytes:
        """As Flow.packed. Raises struct.error and ValueError."""
        src, middle, dst, number, proto = self._ends.unpack_from(ends)
        if middle != self._dst or number != _NUMBER:
            raise ValueError("another order")
        ports = bytes(4)
        if proto in _PORTS_BEGIN:
            first, sport, second, dport = _PORTS.unpack_from(ends, self._ends.size)
            if (first, second) != _PORTS_BEGIN[proto]:
                raise ValueError("no ports")
            ports = sport + (dport if proto in _WITH_PORTS else bytes(2))
        return b"%c%b%b%b" % (proto, ports, src, dst)


_NUMBER: Final = _ATTRIBUTE.pack(_ATTRIBUTE.size + 1, _NUM)
_PORTS: Final = Struct("=3x4s2s2x4s2s")
_OF_TWO: Final = _ATTRIBUTE.pack(6, _SRC_PORT), _ATTRIBUTE.pack(6, _DST_PORT)
_PORTS_BEGIN: Final[dict[int, tuple[bytes, bytes]]] = {  # of an echo request, its identifier
    Proto.TCP: _OF_TWO,
    Proto.UDP: _OF_TWO,
    Proto.ICMP: (_ATTRIBUTE.pack(6, _ECHO), _ATTRIBUTE.pack(5, _ECHO_TYPE)),
    Proto.ICMPV6: (_ATTRIBUTE.pack(6, _ECHO_V6), _ATTRIBUTE.pack(5, _ECHO_V6_TYPE)),
}
_SHAPES: Final = {shape.begins: shape for shape in (_Shape(4, _V4_SRC, _V4_DST), _Shape(16, _V6_SRC, _V6_DST))}


def _packed(ends: bytes) -> bytes:
    try:
        return _SHAPES[ends[4:12]].read(ends)
    except (error, KeyError, ValueError) as unread:
        raise _unread(ends) from unread


def _unpacked(what: Struct, data: bytes, at: int) -> tuple[Any, ...]:
    try:
        return what.unpack_from(data, at)
    except error as unread:
        raise _unread(data) from unread


def _unread(data: bytes) -> OSError:
    return OSError(errno.EBADMSG, f"what can't be read: {data[:_TOLD].hex()}", "ctnetlink")


def _message(kind: int, flags: int, sequence: int, family: int, attributes: bytes) -> bytes:
    size = _HEADER.size + _FAMILY.size + len(attributes)
    return _HEADER.pack(size, kind, flags, sequence, 0) + _FAMILY.pack(family, 0, 0) + attributes


def _number(kind: int, value: int) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + 4, kind) + value.to_bytes(4)
