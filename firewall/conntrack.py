"""The kernel's list of live connections: read, marked anew, forgotten.

Law: the only file that speaks NFNL_SUBSYS_CTNETLINK. Its socket sees the network namespace that it was made in, for
ever. Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nfnetlink.h; all numbers are in network order.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from policy.values import Flow, Proto, address

_NETLINK_NETFILTER: Final = 12
_CTNETLINK: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_NEW, _GET, _DELETE = _CTNETLINK | 0, _CTNETLINK | 1, _CTNETLINK | 2
_ERROR, _DONE = 2, 3  # NLMSG_…
_REQUEST, _ACK, _DUMP = 0x001, 0x004, 0x300
_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_FAMILY: Final = struct.Struct("!BBH")  # nfgenmsg: family, version, resource
_CODE: Final = struct.Struct("=i")
_ATTRIBUTE: Final = struct.Struct("=HH")  # nlattr: length, type
_TYPES: Final = 0x3FFF  # the rest are flags: nested, in network order
_NESTED: Final = 0x8000
_TUPLE_ORIG, _MARK, _ID, _MARK_MASK = 1, 8, 12, 21  # CTA_…
_IP, _PROTO = 1, 2  # CTA_TUPLE_…
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4  # CTA_IP_…
_NUM, _SRC_PORT, _DST_PORT, _ECHO_ID, _ECHO_ID_V6 = 1, 2, 3, 4, 7  # CTA_PROTO_…
_BUFFER: Final = 1 << 16

type _Attributes = dict[int, memoryview]


@dataclass(frozen=True, slots=True)
class Tracked:
    """A live connection: as its first packet was before any translation, and its mark. `key` and `number` are the
    kernel's own names for it."""

    flow: Flow
    mark: int
    key: bytes
    number: bytes


class Conntrack:
    """A ctnetlink socket in the network namespace that is current at construction, as a context manager.

    Wants CAP_NET_ADMIN. Every method raises OSError where the kernel can't be asked.
    """

    def __init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._netlink.bind((0, 0))
        self._sequence = 0

    def marked(self, mark: int, mask: int) -> Iterator[list[Tracked]]:
        """All connections whose mark has the value `mark` under `mask`, some at a time. One that comes or goes
        meanwhile may be missing. The list must be read to its end before anything else is asked."""
        wanted = _attribute(_MARK, struct.pack("!I", mark)) + _attribute(_MARK_MASK, struct.pack("!I", mask))
        self._send(_GET, _REQUEST | _DUMP, wanted)
        while True:
            bodies, ended = self._receive()
            # Kernels filter since 3.8 and may still say more than was asked for.
            yield [one for one in map(_tracked, bodies) if one is not None and one.mark & mask == mark]
            if ended:
                return

    def connections(self) -> tuple[Flow, ...]:
        """All of TCP and UDP that live now."""
        every = (one.flow for some in self.marked(0, 0) for one in some)
        return tuple(flow for flow in every if flow.proto in (Proto.TCP, Proto.UDP))

    def mark(self, tracked: Tracked, mark: int, mask: int) -> bool:
        """Give it these bits of a mark; False if it is gone."""
        new = _attribute(_MARK, struct.pack("!I", mark)) + _attribute(_MARK_MASK, struct.pack("!I", mask))
        return self._do(_NEW, tracked, new)

    def forget(self, tracked: Tracked) -> bool:
        """Its next packet is a stranger's; False if it is gone already."""
        return self._do(_DELETE, tracked, b"")

    def close(self) -> None:
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, what: int, tracked: Tracked, more: bytes) -> bool:
        family = socket.AF_INET if tracked.flow.src.version == 4 else socket.AF_INET6
        named = _attribute(_TUPLE_ORIG | _NESTED, tracked.key) + _attribute(_ID, tracked.number)
        self._send(what, _REQUEST | _ACK, named + more, family)
        try:
            while not self._receive()[1]:
                pass
        except FileNotFoundError:
            return False
        return True

    def _send(self, what: int, flags: int, attributes: bytes, family: int = socket.AF_UNSPEC) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        size = _HEADER.size + _FAMILY.size + len(attributes)
        header = _HEADER.pack(size, what, flags, self._sequence, 0)
        self._netlink.send(header + _FAMILY.pack(family, 0, 0) + attributes)

    def _receive(self) -> tuple[list[memoryview], bool]:
        """The bodies in one datagram, and whether it was the last. The kernel answers inside send() and recv(), so this
        never waits: a lost answer is an error, not a hang."""
        bodies: list[memoryview] = []
        for kind, sequence, body in _messages(memoryview(self._netlink.recv(_BUFFER, socket.MSG_DONTWAIT))):
            if sequence != self._sequence:
                continue
            if kind == _DONE:
                return bodies, True
            if kind == _ERROR:
                _raise_if_failed(body)
                return bodies, True
            bodies.append(body)
        return bodies, False


def _messages(datagram: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    at = 0
    while at + _HEADER.size <= len(datagram):
        size, kind, _, sequence, _ = _HEADER.unpack_from(datagram, at)
        yield kind, sequence, datagram[at + _HEADER.size : at + size]
        at += max(_HEADER.size, (size + 3) & ~3)


def _raise_if_failed(body: memoryview) -> None:
    (code,) = _CODE.unpack_from(body)
    if code == -errno.ENOENT:
        raise FileNotFoundError(errno.ENOENT, "no such connection")
    if code:
        raise OSError(-code, "the kernel refuses", "ctnetlink")


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value.ljust((len(value) + 3) & ~3, b"\0")


def _attributes(block: memoryview) -> _Attributes:
    found: _Attributes = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(block):
        size, kind = _ATTRIBUTE.unpack_from(block, at)
        found[kind & _TYPES] = block[at + _ATTRIBUTE.size : at + size]
        at += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return found


def _tracked(body: memoryview) -> Tracked | None:
    """None for what has no addresses that a flow could have."""
    said = _attributes(body[_FAMILY.size :])
    key = said.get(_TUPLE_ORIG)
    ends = {} if key is None else _attributes(key)
    if key is None or _IP not in ends or _PROTO not in ends:
        return None
    flow = _flow(_attributes(ends[_IP]), _attributes(ends[_PROTO]))
    mark = int.from_bytes(said.get(_MARK, b""))
    return None if flow is None else Tracked(flow, mark, bytes(key), bytes(said.get(_ID, b"")))


def _flow(ends: _Attributes, proto: _Attributes) -> Flow | None:
    src, dst = ends.get(_V4_SRC) or ends.get(_V6_SRC), ends.get(_V4_DST) or ends.get(_V6_DST)
    if src is None or dst is None or _NUM not in proto:
        return None
    sport = proto.get(_SRC_PORT) or proto.get(_ECHO_ID) or proto.get(_ECHO_ID_V6) or b""
    dport = proto.get(_DST_PORT, b"")
    return Flow(proto[_NUM][0], address(bytes(src)), int.from_bytes(sport), address(bytes(dst)), int.from_bytes(dport))
