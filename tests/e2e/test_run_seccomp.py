"""System calls that lead around a network namespace are refused to the guarded command, and no others."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from dnsfw.errors import SetupError
from dnsfw.machine import seccomp
from dnsfw.machine.privilege import ROOT, become
from dnsfw.playground.world import Playground

SYSCALL = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    result = libc.syscall(*args)
    print(errno.errorcode[ctypes.get_errno()] if result < 0 else "OK")
"""
NUMBERS = "n = dict(x86_64=(16, 41, 249, 425), aarch64=(29, 198, 218, 425))[os.uname().machine]\n"
CASES = {
    "typing into the terminal": ("call(n[0], 0, 0x5412, ctypes.create_string_buffer(b'x'))", "EPERM"),
    "typing, with a high half": (
        "call(n[0], 0, ctypes.c_ulong(0x1_0000_5412), ctypes.create_string_buffer(b'x'))",
        "EPERM",
    ),
    "the console's own way": ("call(n[0], 0, 0x541C, ctypes.create_string_buffer(b'x'))", "EPERM"),
    "the virtual machine's host": ("call(n[1], 40, 1, 0)", "EAFNOSUPPORT"),
    "bluetooth": ("call(n[1], 31, 1, 0)", "EAFNOSUPPORT"),
    "a key that the kernel would resolve": ("call(n[2], b'dns_resolver', b'x.test', None, 0)", "ENOSYS"),
    "io_uring": ("call(n[3], 8, ctypes.create_string_buffer(120))", "ENOSYS"),
    "an ordinary socket": ("call(n[1], 2, 1, 0)", "OK"),
}


@pytest.mark.kernel
@pytest.mark.parametrize(("code", "answer"), CASES.values(), ids=CASES)
def test_what_is_refused(code: str, answer: str) -> None:
    """In a child of our own with the very filter; the next test shows that the command has one."""

    def filtered() -> None:
        become(ROOT)
        seccomp.install(seccomp.own_program())

    command = [sys.executable, "-I", "-c", SYSCALL + NUMBERS + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=filtered, timeout=20)
    assert done.stdout == f"{answer}\n", done.stderr


# mmap(2) of code below 4 GiB that calls socketcall(SYS_SOCKET, {family, SOCK_STREAM, 0}) the 32-bit way: i386's ABI.
SOCKETCALL = """
import ctypes, errno, struct, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(ctypes.c_void_p(0x10000000), 4096, 7, 0x32, -1, 0)
code = bytes.fromhex("53 b866000000 bb01000000 b900010010 cd80 5b c3")  # eax 102, ebx 1, ecx page + 256; int 0x80
ctypes.memmove(page, code, len(code))
ctypes.memmove(page + 256, struct.pack("=3I", int(sys.argv[1]), 1, 0), 12)
result = ctypes.CFUNCTYPE(ctypes.c_int)(page)()
print(errno.errorcode[-result] if result < 0 else "OK")
"""


@pytest.mark.kernel
@pytest.mark.skipif(platform.machine() != "x86_64", reason="socketcall(2) is i386's")
def test_no_socket_is_made_where_its_family_is_out_of_sight() -> None:
    """A kernel without 32-bit programs ends the child by a signal, which is as good."""

    def filtered() -> None:
        become(ROOT)
        seccomp.install(seccomp.own_program())

    command = [sys.executable, "-I", "-c", SOCKETCALL, "40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=filtered, timeout=20)
    assert done.stdout == "ENOSYS\n" or done.returncode < 0, done.stderr


@pytest.mark.kernel
@pytest.mark.parametrize("process", ["self", "1"], ids=["the command", "its init, which root's command may trace"])
def test_all_inside_have_the_filter(world: Playground, process: str) -> None:
    """PID 1 takes a moment longer to start than the command."""
    seen = f"until grep -q init.py /proc/{process}/cmdline; do sleep 0.01; done; " if process == "1" else ""
    show = ["sh", "-c", f"{seen}grep ^Seccomp /proc/{process}/status"]
    done = world.run(world.dnsfw("run", "-q", "--", *show))
    assert done.stdout == "Seccomp:\t2\nSeccomp_filters:\t1\n", done.stderr


def test_an_unknown_machine_is_an_error_not_an_open_door() -> None:
    with pytest.raises(SetupError, match="riscv64"):
        seccomp.program("riscv64")
