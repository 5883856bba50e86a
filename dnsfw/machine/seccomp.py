"""System call filters: what would lead around a network namespace is refused to the guarded command; the proxy is left
with what a table names.

Law: a filter is made by a pure function from a table; only `install` touches the kernel (seccomp(2)). It stays for
every descendant and can't be taken off.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dnsfw.errors import SetupError

_libc = ctypes.CDLL(None, use_errno=True)

# <linux/seccomp.h>, <linux/prctl.h>
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# struct seccomp_data: nr, arch, instruction_pointer, args[6]; the low halves on a little-endian machine.
_NR, _ARCH, _ARG0, ARG1 = 0, 4, 16, 24
# <linux/filter.h>: load a word, jump if equal, return.
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_INSTRUCTION = struct.Struct("=HBBI")

_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into the caller's terminal, for its shell to run
_SYS_SOCKET = 1  # <linux/net.h>
_FOREIGN_FAMILIES = (31, 40, 42)  # AF_BLUETOOTH, AF_VSOCK, AF_QIPCRTR: they know no network namespace


@dataclass(frozen=True, slots=True)
class _Abi:
    """A system call interface: its AUDIT_ARCH number (<linux/audit.h>) and its numbers for the calls we look at."""

    arch: int
    ioctl: tuple[int, ...]
    socket: tuple[int, ...]
    # request_key(2) has the kernel start a resolver outside every namespace; io_uring makes sockets past this filter.
    refused: tuple[int, ...]
    socketcall: tuple[int, ...] = ()  # socketcall(2), whose family is in memory, where no filter sees it


_X32 = 0x40000000
_ABIS = {
    "x86_64": (
        _Abi(0xC000003E, (16, _X32 + 514), (41, _X32 + 41), (249, _X32 + 249, 425, _X32 + 425)),
        _Abi(0x40000003, (54,), (359,), (287, 425), (102,)),  # 32-bit programs
    ),
    "aarch64": (
        _Abi(0xC00000B7, (29,), (198,), (218, 425)),
        _Abi(0x40000028, (54,), (281,), (310, 425)),
    ),
}


def program(machine: str) -> bytes:
    """The classic BPF program for a machine as platform.machine() names it. Raises SetupError for an unknown one."""
    if machine not in _ABIS:
        raise SetupError(f"dnsfw knows no system call filter for {machine}.", f"It has one for {', '.join(_ABIS)}.")
    blocks = [b"".join(_interface(abi)) for abi in _ABIS[machine]]
    # An interface that isn't in the table can't be judged: refused as a whole.
    return b"".join([*blocks, _return(_ERRNO | errno.ENOSYS)])


def only(arch: int, calls: Iterable[int], arguments: Mapping[int, tuple[int, tuple[int, ...]]]) -> bytes:
    """The program that leaves one interface's `calls` and refuses all else with ENOSYS, for which callers have another
    way or fail. `arguments` are calls allowed with few values of one argument: call → (its offset, values)."""
    rules = [_permit_call(nr) for nr in calls]
    rules += [_permit_argument(nr, offset, values) for nr, (offset, values) in arguments.items()]
    body = _load(_NR) + b"".join(rules)
    return _load(_ARCH) + _unless(arch, skip=body) + body + _return(_ERRNO | errno.ENOSYS)


def install(code: bytes) -> None:
    """Put the filter on this process. Needs no_new_privs. Raises OSError."""
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HxxxxxxP", len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))
    if _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), header, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def own_program() -> bytes:
    """The one for this machine. Raises SetupError."""
    return program(platform.machine())


def _interface(abi: _Abi) -> Iterator[bytes]:
    """Everything about one interface; skipped as a whole for the others."""
    rules = [_refuse_call(nr, errno.ENOSYS) for nr in abi.refused]
    rules += [_refuse_argument(nr, ARG1, _TERMINAL_INPUT, errno.EPERM) for nr in abi.ioctl]
    rules += [_refuse_argument(nr, _ARG0, _FOREIGN_FAMILIES, errno.EAFNOSUPPORT) for nr in abi.socket]
    rules += [_refuse_argument(nr, _ARG0, (_SYS_SOCKET,), errno.ENOSYS) for nr in abi.socketcall]
    body = b"".join(rules) + _return(_ALLOW)
    yield _load(_ARCH) + _unless(abi.arch, skip=body) + body


def _refuse_call(nr: int, error: int) -> bytes:
    refusal = _return(_ERRNO | error)
    return _load(_NR) + _unless(nr, skip=refusal) + refusal


def _refuse_argument(nr: int, argument: int, values: tuple[int, ...], error: int) -> bytes:
    refusal = _return(_ERRNO | error)
    tests = _load(argument) + b"".join(_unless(value, skip=refusal) + refusal for value in values)
    return _load(_NR) + _unless(nr, skip=tests) + tests


def _permit_call(nr: int) -> bytes:
    """Where the call's number is loaded."""
    permission = _return(_ALLOW)
    return _unless(nr, skip=permission) + permission


def _permit_argument(nr: int, argument: int, values: tuple[int, ...]) -> bytes:
    """The same, of a call with these values only."""
    permission = _return(_ALLOW)
    tests = _load(argument) + b"".join(_unless(value, skip=permission) + permission for value in values)
    refused = tests + _return(_ERRNO | errno.EPERM)
    return _unless(nr, skip=refused) + refused


def _load(offset: int) -> bytes:
    return _INSTRUCTION.pack(_LOAD, 0, 0, offset)


def _unless(value: int, skip: bytes) -> bytes:
    """Skip those instructions unless the loaded word is `value`."""
    return _INSTRUCTION.pack(_EQUAL, 0, len(skip) // _INSTRUCTION.size, value)


def _return(action: int) -> bytes:
    return _INSTRUCTION.pack(_RETURN, 0, 0, action)
