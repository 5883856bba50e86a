"""System calls that lead around a network namespace are refused to the guarded command, and no others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dnsfw import seccomp
from dnsfw.errors import SetupError
from dnsfw.playground.world import Playground
from dnsfw.privilege import ROOT, become

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


@pytest.mark.kernel
def test_the_command_has_the_filter(world: Playground) -> None:
    done = world.run(world.dnsfw("run", "-q", "--", "grep", "^Seccomp", "/proc/self/status"))
    assert done.stdout == "Seccomp:\t2\nSeccomp_filters:\t1\n", done.stderr


def test_an_unknown_machine_is_an_error_not_an_open_door() -> None:
    with pytest.raises(SetupError, match="riscv64"):
        seccomp.program("riscv64")
