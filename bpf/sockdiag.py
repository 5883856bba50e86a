"""Which socket a flow belongs to, asked of the kernel by sock_diag(7).

Law: the only file that speaks NETLINK_SOCK_DIAG. Its socket is made with the object and sees the network namespace
that it was made in, for ever. Source: sock_diag(7), include/uapi/linux/inet_diag.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import batched
from types import TracebackType
from typing import Self

from policy.values import Address, Flow, Proto, address

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x001, 0x004, 0x300
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ERROR = struct.Struct("=i")
_QUESTION = struct.Struct("=BBBBI")  # inet_diag_req_v2: family, protocol, ext, pad, states
_ANSWER = struct.Struct("=BBBB")  # inet_diag_msg: family, state, timer, retrans
_SOCKET_ID = struct.Struct("!HH16s16s")  # inet_diag_sockid: ports and addresses, network order
_SCOPE = struct.Struct("=IQ")  # and the interface and cookie, ours
_INODE = struct.Struct("=I")
_INODE_AT = 4 + 48 + 16  # behind inet_diag_sockid, and expires, rqueue, wqueue and uid
_ANY_SCOPE = _SCOPE.pack(0, 2**64 - 1)
_BUFFER = 65536  # the kernel fills a dump's datagrams up to 32 KiB
_CONNECTED = 1  # TCP_ESTABLISHED (net/tcp_states.h); a connected UDP socket has it too
# The states in which a TCP connection may still send: established, fin-wait-1, -2, close-wait, last-ack, closing.
_UP = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11
_MAY_SEND = {Proto.TCP: _UP | 1 << 2, Proto.UDP: 1 << _CONNECTED}  # syn-sent, too
_ID_END = _ANSWER.size + _SOCKET_ID.size + _SCOPE.size
_MAPPED = bytes(10) + b"\xff\xff"
_BATCH = 128  # sockets at once; ours has room for that many refusals
_ABSENT = (errno.ENOENT,)
_GONE = (errno.ENOENT, errno.ESTALE, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Found:
    """A socket: its cookie (SO_COOKIE), and whether it is connected to just this flow's far end."""

    cookie: int
    connected: bool


class SockDiag:
    """A sock_diag socket in the network namespace that is current at construction."""

    def __init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._sequence = 0

    def find(self, flow: Flow) -> Found | None:
        """The socket that a TCP or UDP flow from here belongs to. Raises OSError where the kernel can't be asked.

        For UDP the kernel looks up the socket that would *receive* such a packet (net/ipv4/udp_diag.c,
        udp_dump_one), so the question has the ends swapped.
        """
        for answer in self._ask(_about(flow, swapped=flow.proto == Proto.UDP) + _ANY_SCOPE, _REQUEST):
            _, state, _, _ = _ANSWER.unpack_from(answer)
            _, cookie = _SCOPE.unpack_from(answer, _ANSWER.size + _SOCKET_ID.size)
            return Found(cookie, connected=state == _CONNECTED)
        return None

    def abort(self, flows: Collection[bytes]) -> Iterator[None]:
        """Have the kernel abort the TCP and connected UDP sockets that these flows from here (Flow.packed) are of: both
        ends hear of it, at once. Gives way between some and the next. One that is gone is fine, and so is a kernel that
        can't (without CONFIG_INET_DIAG_DESTROY). Wants CAP_NET_ADMIN. Raises OSError."""
        orders: list[bytes] = []
        for proto, states in _MAY_SEND.items():
            wanted = {flow[1:] for flow in flows if flow[0] == proto}  # ports and addresses
            for family in (socket.AF_INET, socket.AF_INET6) if wanted else ():
                question = _QUESTION.pack(family, proto, 0, 0, states) + bytes(_SOCKET_ID.size) + _ANY_SCOPE
                of_both = _QUESTION.pack(family, proto, 0, 0, 0)
                orders += (
                    of_both + answer[_ANSWER.size : _ID_END]
                    for answer in self._ask(question, _REQUEST | _DUMP)
                    if _ends(family, answer) in wanted
                )
        for some in batched(orders, _BATCH):
            self._destroy(some)
            yield

    def _destroy(self, questions: Iterable[bytes]) -> None:
        """A system call each would be most of the cost. What fails is answered, and only that."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        self._netlink.send(b"".join(_message(_SOCK_DESTROY, _REQUEST, self._sequence, each) for each in questions))
        while True:
            try:
                datagram = self._netlink.recv(_BUFFER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            for said, sequence, body in _messages(datagram):
                if said == _NLMSG_ERROR and sequence == self._sequence:
                    _raise_unless(body, _GONE)

    def established(self) -> list[Flow]:
        """Every TCP connection and connected UDP socket here, each as a flow from its own end to the far one: who
        spoke first can't be told any more. Raises OSError."""
        flows = set[Flow]()
        for proto, states in ((Proto.TCP, _UP), (Proto.UDP, 1 << _CONNECTED)):
            for family in (socket.AF_INET, socket.AF_INET6):
                question = _QUESTION.pack(family, proto, 0, 0, states) + bytes(_SOCKET_ID.size) + _ANY_SCOPE
                flows.update(_flow(proto, answer) for answer in self._ask(question, _REQUEST | _DUMP))
        return sorted(flows, key=lambda flow: (flow.proto, flow.sport, flow.dport, flow.src.packed, flow.dst.packed))

    def senders(self, flow: Flow, redirected: int | None = None) -> set[int]:
        """The inodes of all sockets that may have sent a TCP or UDP flow from here. If it was `redirected` from a port,
        its destination is not what its sender said. Raises OSError."""
        found = set[int]()
        for family in (socket.AF_INET, socket.AF_INET6):
            question = _QUESTION.pack(family, flow.proto, 0, 0, 2**32 - 1) + bytes(_SOCKET_ID.size) + _ANY_SCOPE
            for answer in self._ask(question, _REQUEST | _DUMP):
                (inode,) = _INODE.unpack_from(answer, _INODE_AT)
                if inode and _may_send(_flow(Proto(flow.proto), answer), flow, redirected):
                    found.add(inode)
        return found

    def close(self) -> None:
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, question: bytes, flags: int) -> Iterator[bytes]:
        """The answers to one question. The kernel answers inside send(), so recv() never waits: a lost answer is
        an error, not a hang. Answers to an earlier question that was not read to its end are passed over."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        self._netlink.send(_message(_SOCK_DIAG_BY_FAMILY, flags, self._sequence, question))
        while True:
            for said, sequence, body in _messages(self._netlink.recv(_BUFFER, socket.MSG_DONTWAIT)):
                if sequence != self._sequence:
                    continue
                if said == _NLMSG_DONE:
                    return
                if said == _NLMSG_ERROR:
                    _raise_unless(body, _ABSENT)
                    return
                yield body
                if not flags & _DUMP:
                    return


def _messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(datagram):
        size, kind, _, sequence, _ = _HEADER.unpack_from(datagram, at)
        yield kind, sequence, datagram[at + _HEADER.size : at + size]
        at += max(_HEADER.size, (size + 3) & ~3)


def _message(kind: int, flags: int, sequence: int, question: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(question), kind, flags, sequence, 0) + question


def _raise_unless(body: bytes, fine: Collection[int]) -> None:
    (code,) = _ERROR.unpack_from(body)
    if code and -code not in fine:
        raise OSError(-code, "the kernel refuses", "sock_diag")


def _ends(family: int, answer: bytes) -> bytes:
    """Of a socket as an answer says it (ports from octet 4, addresses from 8 and 24): as Flow.packed says a flow's."""
    if family == socket.AF_INET:
        return answer[4:12] + answer[24:28]
    if answer[8:20] == _MAPPED:  # an IPv6 socket that speaks IPv4 (RFC 4291 section 2.5.5.2)
        return answer[4:8] + answer[20:24] + answer[36:40]
    return answer[4:40]


def _about(flow: Flow, *, swapped: bool) -> bytes:
    """The question which socket a flow is of, up to its scope."""
    ends = (flow.src, flow.sport), (flow.dst, flow.dport)
    (src, sport), (dst, dport) = reversed(ends) if swapped else ends
    family = socket.AF_INET if isinstance(flow.src, IPv4Address) else socket.AF_INET6
    return _QUESTION.pack(family, flow.proto, 0, 0, 2**32 - 1) + _socket_id(src, sport, dst, dport)


def _socket_id(src: Address, sport: int, dst: Address, dport: int) -> bytes:
    return _SOCKET_ID.pack(sport, dport, src.packed, dst.packed)


def _flow(proto: Proto, answer: bytes) -> Flow:
    family = _ANSWER.unpack_from(answer)[0]
    sport, dport, src, dst = _SOCKET_ID.unpack_from(answer, _ANSWER.size)
    size = 4 if family == socket.AF_INET else 16
    return Flow(proto, address(src[:size]), sport, address(dst[:size]), dport)


def _may_send(own: Flow, flow: Flow, redirected: int | None) -> bool:
    """Can a socket, here as the flow between its two ends, send this flow? A UDP socket can send anywhere, connected or
    not; where it has no address of its own yet, any will do."""
    if own.sport != flow.sport or not (own.src.is_unspecified or own.src == flow.src):
        return False
    if flow.proto == Proto.UDP:
        return True
    return own.dport == redirected if redirected else (own.dst, own.dport) == (flow.dst, flow.dport)
