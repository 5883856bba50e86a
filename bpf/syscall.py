"""bpf(2), the few commands of it that a running guard needs.

Law: the only caller of the raw system call. No libbcc here: the compiler behind it would stay in the guard's memory.
Source: include/uapi/linux/bpf.h, union bpf_attr.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MAP_LOOKUP, _MAP_UPDATE, _OBJ_GET_INFO, _PROG_QUERY, _TRACEPOINT_OPEN = 1, 2, 15, 16, 17
_MAP_LOOKUP_BATCH, _LINK_CREATE = 24, 28
_BATCH = 4096
_NETFILTER, _LOCAL_OUT = 45, 3  # enum bpf_attach_type; enum nf_inet_hooks (linux/netfilter.h)

_libc = ctypes.CDLL(None, use_errno=True)
_number = _NUMBERS.get(platform.machine(), -1)  # -1 is ENOSYS
_element = struct.Struct("=I4xQQQ")  # map_fd, key, value, flags
_batch = struct.Struct("=QQQQIIQQ")  # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
_tracepoint = struct.Struct("=QI4x")  # name, prog_fd
_link = struct.Struct("=IIII")  # prog_fd, target_fd, attach_type, flags
_netfilter_link = struct.Struct("=IIIIIIiI")  # and pf, hooknum, priority, flags
_query = struct.Struct("=IIIIQI4x")  # target_fd, attach_type, query_flags, attach_flags, prog_ids, prog_cnt
_info = struct.Struct("=IIQ")  # bpf_fd, info_len, info
_map_info = struct.Struct("=IIIII")  # type, id, key_size, value_size, max_entries


@dataclass(frozen=True, slots=True)
class MapShape:
    key_size: int
    value_size: int
    max_entries: int


class Map:
    """A hash map of the kernel's, by its descriptor, which the caller keeps open. Not for two threads at once."""

    def __init__(self, fd: int) -> None:
        self.shape = _shape(fd)
        self._fd = fd
        self._key = ctypes.create_string_buffer(self.shape.key_size)
        self._value = ctypes.create_string_buffer(self.shape.value_size)
        element = _element.pack(fd, ctypes.addressof(self._key), ctypes.addressof(self._value), 0)
        self._attr = ctypes.create_string_buffer(element, _element.size)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key of exactly the map's size. Raises OSError for any fault but its absence."""
        self._key.raw = key
        if _libc.syscall(_number, _MAP_LOOKUP, self._attr, _element.size) == 0:
            return self._value.raw
        _raise_unless(errno.ENOENT, "BPF_MAP_LOOKUP_ELEM")
        return None

    def count(self) -> int:
        """How many entries a hash has now. Meanwhile changed, it may be a few off. Raises OSError."""
        keys = ctypes.create_string_buffer(self.shape.key_size * _BATCH)
        values = ctypes.create_string_buffer(self.shape.value_size * _BATCH)
        cursor = ctypes.create_string_buffer(max(8, self.shape.key_size))
        found, start, done = 0, 0, False
        while not done:
            attr = ctypes.create_string_buffer(
                _batch.pack(start, *map(ctypes.addressof, (cursor, keys, values)), _BATCH, self._fd, 0, 0),
                _batch.size,
            )
            if done := _libc.syscall(_number, _MAP_LOOKUP_BATCH, attr, len(attr)) < 0:
                _raise_unless(errno.ENOENT, "BPF_MAP_LOOKUP_BATCH")  # which says that these were the last
            found, start = found + _batch.unpack(attr.raw)[4], ctypes.addressof(cursor)
        return found

    def put(self, key: bytes, value: bytes) -> None:
        self._key.raw, self._value.raw = key, value
        _call(_MAP_UPDATE, self._attr)


def link_to_cgroup(program: int, cgroup: int, attach_type: int) -> int:
    """Attach a loaded program to a cgroup2 directory, beside whatever is there, for as long as the returned
    descriptor (or a copy) lives. Raises OSError."""
    return _call(_LINK_CREATE, ctypes.create_string_buffer(_link.pack(program, cgroup, attach_type, 0), _link.size))


def link_to_output(program: int, family: int, priority: int) -> int:
    """Have a loaded program see all packets of a family (AF_INET, AF_INET6) that leave the current network namespace,
    at this priority of netfilter's output hook, for as long as the returned descriptor lives. Raises OSError."""
    attr = _netfilter_link.pack(program, 0, _NETFILTER, 0, family, _LOCAL_OUT, priority, 0)
    return _call(_LINK_CREATE, ctypes.create_string_buffer(attr, len(attr)))


def trace(program: int, tracepoint: str) -> int:
    """Run a loaded program at a raw tracepoint for as long as the returned descriptor lives. Raises OSError."""
    name = ctypes.create_string_buffer(tracepoint.encode())
    attr = _tracepoint.pack(ctypes.addressof(name), program)
    return _call(_TRACEPOINT_OPEN, ctypes.create_string_buffer(attr, _tracepoint.size))


def programs_at(cgroup: int, attach_type: int) -> tuple[int, ...]:
    """The ids of the programs attached to a cgroup2 directory itself. Raises OSError."""
    ids = (ctypes.c_uint32 * 64)()
    attr = ctypes.create_string_buffer(
        _query.pack(cgroup, attach_type, 0, 0, ctypes.addressof(ids), len(ids)), _query.size
    )
    _call(_PROG_QUERY, attr)
    return tuple(ids[: _query.unpack(attr.raw)[5]])


def _shape(fd: int) -> MapShape:
    found = ctypes.create_string_buffer(_map_info.size)
    _call(_OBJ_GET_INFO, ctypes.create_string_buffer(_info.pack(fd, len(found), ctypes.addressof(found)), _info.size))
    _, _, *shape = _map_info.unpack(found.raw)
    return MapShape(*shape)


def _raise_unless(expected: int, what: str) -> None:
    if (fault := ctypes.get_errno()) != expected:
        raise OSError(fault, os.strerror(fault), what)


def _call(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    result: int = _libc.syscall(_number, command, attr, len(attr))
    if result < 0:
        fault = ctypes.get_errno()
        raise OSError(fault, os.strerror(fault), "bpf(2)")
    return result
