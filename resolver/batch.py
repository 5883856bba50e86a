"""Datagrams by the batch: as many as have arrived with one system call, as many replies with another.

Law: the only file that knows recvmmsg(2) and sendmmsg(2), and it knows nothing of DNS. A datagram and the reply to
it share a slot: octets in `octets`, the peer's address in `names`. The calls never wait, so they keep the interpreter:
giving it up for so short a time would have another thread take it for milliseconds.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Final

from policy.values import Address, address

SLOTS: Final = 64

_libc = ctypes.PyDLL(None, use_errno=True)
_NAME_SIZE: Final = {socket.AF_INET: 16, socket.AF_INET6: 28}  # sockaddr_in, sockaddr_in6 (ip(7), ipv6(7))
_PORT: Final = struct.Struct("!2xH")  # after the family, network order, in both


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("vector", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr: a header, and how many octets came or went."""

    _fields_ = (("header", _Header), ("size", ctypes.c_uint32))


# Where, counted in their own size, the sizes stand in arrays of these.
_SIZE_AT, _SIZE_STEP = (
    each // ctypes.sizeof(ctypes.c_uint32) for each in (_Message.size.offset, ctypes.sizeof(_Message))
)
_REPLY_AT, _REPLY_STEP = (
    each // ctypes.sizeof(ctypes.c_size_t) for each in (_Iovec.size.offset, ctypes.sizeof(_Iovec))
)
_BESIDE_AT, _BESIDE_STEP = (
    each // ctypes.sizeof(ctypes.c_size_t) for each in (_Header.control_size.offset, ctypes.sizeof(_Message))
)


class Batch:
    """The slots of one bound, non-blocking UDP socket. `room` is a slot's size in octets: what is longer is cut.

    After `receive`, slot `n` holds its datagram, `sizes[n]` long, from `octets[n * room]` on, and its peer, as the
    kernel writes one, from `names[n * name_size]` on. A reply is written over the datagram, its size into `replies[n]`.

    `beside` is room for ancillary data: it comes and goes with a datagram, in `names` behind the peer.
    """

    def __init__(self, sock: socket.socket, room: int, beside: int = 0) -> None:
        self._socket, self.room, self._beside = sock, room, beside
        self._family = socket.AddressFamily(sock.family)
        self._here = address(sock.getsockname()[0])
        self.name_size = _NAME_SIZE[self._family] + beside
        self.octets = bytearray(SLOTS * room)
        self.names = bytearray(SLOTS * self.name_size)
        self._incoming, *self._kept = self._messages()
        self._outgoing, vectors = self._messages()
        self.sizes = memoryview(self._incoming).cast("B").cast("I")[_SIZE_AT::_SIZE_STEP]
        self._told = memoryview(self._incoming).cast("B").cast("L")[_BESIDE_AT::_BESIDE_STEP]  # beside each, this time
        self.replies = memoryview(vectors).cast("B").cast("L")[_REPLY_AT::_REPLY_STEP]
        self._kept.append(vectors)  # the kernel is given their address, which keeps nothing alive
        self._to_send = ctypes.addressof(self._outgoing)

    def receive(self, most: int) -> int:
        """How many datagrams have come, at most `most`. Raises OSError."""
        count: int = _libc.recvmmsg(self._socket.fileno(), self._incoming, most, socket.MSG_DONTWAIT, None)
        if count >= 0:
            return count
        return _none_for_now()

    def send(self, first: int, count: int) -> int:
        """Send the replies of so many slots from `first` on; how many the kernel took: it stops at the first that it
        can't. Raises OSError if that is the first of them, unless there is only no room."""
        at = self._to_send + first * ctypes.sizeof(_Message)
        taken: int = _libc.sendmmsg(self._socket.fileno(), ctypes.c_void_p(at), count, socket.MSG_DONTWAIT)
        if taken >= 0:
            return taken
        return _none_for_now()

    def name(self, slot: int) -> bytes:
        """The name in this slot."""
        return bytes(self.names[slot * self.name_size : (slot + 1) * self.name_size])

    def is_of_one(self, count: int) -> bool:
        """Whether the first so many slots all have the same name."""
        return self.names[: count * self.name_size] == self.names[: self.name_size] * count

    def peer(self, name: bytes) -> tuple[Address, int]:
        """Whose address and port that is."""
        (port,) = _PORT.unpack_from(name)
        return address(name[4:8] if self._family is socket.AF_INET else name[8:24]), port

    def here(self, _name: bytes) -> Address:
        """The address of ours that a datagram of this name reached."""
        return self._here

    def put(self, slot: int, name: bytes, reply: bytes) -> None:
        """Make ready to send `reply` to a peer that the kernel once wrote as `name`."""
        self.names[slot * self.name_size : (slot + 1) * self.name_size] = name
        self.octets[slot * self.room : slot * self.room + len(reply)] = reply
        self.replies[slot] = len(reply)

    def _messages(self) -> tuple[ctypes.Array[_Message], ctypes.Array[_Iovec]]:
        """One message a slot over the shared octets and names, each with all of its slot."""
        octets, names = (ctypes.addressof(ctypes.c_char.from_buffer(each)) for each in (self.octets, self.names))
        vectors = (_Iovec * SLOTS)(*(_Iovec(octets + slot * self.room, self.room) for slot in range(SLOTS)))
        messages = (_Message * SLOTS)()
        for slot, message in enumerate(messages):
            header = message.header
            header.name, header.name_size = names + slot * self.name_size, self.name_size - self._beside
            header.vector, header.vector_count = ctypes.addressof(vectors) + slot * ctypes.sizeof(_Iovec), 1
            if self._beside:
                header.control, header.control_size = header.name + header.name_size, self._beside
        return messages, vectors


def _none_for_now() -> int:
    """0 where the call would have had to wait. Raises OSError for any other fault of the last call."""
    fault = ctypes.get_errno()
    if fault in (errno.EAGAIN, errno.EINTR):
        return 0
    raise OSError(fault, os.strerror(fault))
