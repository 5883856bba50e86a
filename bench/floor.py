"""Empty programs on the hooks that attribution uses: what the kernel takes for the hooks alone.

Law: bpf(2) by two instructions a program, and nothing of ours, so that no change of ours moves the floor.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bpf.compile import HOOKS, ON_JUDGED
from bpf.syscall import link_to_cgroup, link_to_output
from firewall.ruleset import JUDGED

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD = 5
_RETURN_1 = struct.pack("=BBhi", 0xB7, 0, 0, 1) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = 1; exit
# prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, flags, name, ifindex, attach_type
_LOAD = struct.Struct("=IIQQIIQII16sII")


@contextmanager
def empty_hooks(cgroup: Path) -> Iterator[None]:
    """Every hook of attribution's, in the current network namespace too, with a program that does nothing. Raises
    OSError."""
    with ExitStack() as stack:
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, directory)
        for hook in HOOKS:
            program = _load(hook.program_type, hook.attach_type)
            stack.callback(os.close, program)
            stack.callback(os.close, link_to_cgroup(program, directory, hook.attach_type))
        program = _load(ON_JUDGED.program_type, ON_JUDGED.attach_type)
        stack.callback(os.close, program)
        for family in (socket.AF_INET, socket.AF_INET6):
            stack.callback(os.close, link_to_output(program, family, JUDGED[0]))
        yield


def _load(program_type: int, attach_type: int) -> int:
    code, licence = ctypes.create_string_buffer(_RETURN_1), ctypes.create_string_buffer(b"Apache-2.0")
    where = ctypes.addressof(code), ctypes.addressof(licence)
    attr = ctypes.create_string_buffer(
        _LOAD.pack(program_type, len(_RETURN_1) // 8, *where, 0, 0, 0, 0, 0, b"", 0, attach_type), _LOAD.size
    )
    libc = ctypes.CDLL(None, use_errno=True)
    loaded: int = libc.syscall(_SYSCALL[os.uname().machine], _PROG_LOAD, attr, len(attr))
    if loaded < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "BPF_PROG_LOAD")
    return loaded
