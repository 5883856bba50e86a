"""The proxy's system calls: the table against the kernel's own headers, the filter in a process of its own."""

from __future__ import annotations

import errno
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dnsfw.errors import SetupError
from dnsfw.inspection import calls

_X86 = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
_GENERIC = Path("/usr/include/asm-generic/unistd.h")
_LATER_FORM = {"newfstatat": "fstatat"}  # what asm-generic calls it
_OLD = {"poll": "ppoll", "select": "pselect6", "epoll_wait": "epoll_pwait", "stat": "fstatat", "lstat": "fstatat",
        "readlink": "readlinkat", "access": "faccessat"}  # fmt: skip


@pytest.mark.skipif(not _X86.exists() or not _GENERIC.exists(), reason="the kernel's headers for programs are not here")
def test_every_number_is_the_kernel_s() -> None:
    x86 = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", _X86.read_text()))
    generic = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", _GENERIC.read_text()))
    renamed = _LATER_FORM | _OLD
    assert {name: (int(x86[name]), int(generic[renamed.get(name, name)])) for name in calls.CALLS} == calls.CALLS


def test_an_unknown_machine_is_a_clear_error() -> None:
    with pytest.raises(SetupError, match="no system calls of mips"):
        calls.program("mips")


_TRIES = """
import ctypes, errno, fcntl, json, os, platform, socket, threading
from dnsfw.inspection import calls
from dnsfw.machine import seccomp
from dnsfw.machine.privilege import ROOT, become

def tried(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    except RuntimeError as error:
        return str(error)
    return ""

listener = socket.create_server(("127.0.0.1", 0))
lent, client = socket.create_connection(listener.getsockname()), socket.socket()
become(ROOT)
seccomp.install(calls.program(platform.machine()))
print(json.dumps({
    "connect": tried(lambda: client.connect(listener.getsockname())),
    "accept": tried(lambda: listener.accept()[0].close()),
    "read": tried(lambda: open("/etc/hostname").read()),
    "pair": tried(lambda: [end.close() for end in socket.socketpair()]),
    "fork": tried(os.fork),
    "exec": tried(lambda: os.execv("/bin/true", ["true"])),
    "kill": tried(lambda: os.kill(os.getpid(), 0)),
    "thread": tried(threading.Thread(target=print).start),
    "send": tried(lambda: lent.sendall(b"hello")),
    "tcp": tried(lambda: socket.socket(socket.AF_INET)),
    "unix": tried(lambda: socket.socket(socket.AF_UNIX)),
    "bind": tried(lambda: client.bind(("127.0.0.1", 0))),
    "unlink": tried(lambda: os.unlink("/nothing")),
    "rename": tried(lambda: os.rename("/nothing", "/more")),
    "unshare": tried(lambda: os.unshare(os.CLONE_NEWUSER)),
    "trace": tried(lambda: seccomp.install(b"")),
    "tiocsti": tried(lambda: fcntl.ioctl(0, 0x5412, b"x")),
}))
"""


@pytest.mark.kernel("root")
def test_what_is_left_to_a_process_of_that_kind() -> None:
    done = subprocess.run([sys.executable, "-c", _TRIES], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    works = {name: said.pop(name) for name in ("accept", "send", "read", "pair")}
    assert set(works.values()) == {""}, works
    assert said.pop("tiocsti") == "EPERM"
    assert said.pop("thread") == "can't start new thread"
    assert set(said.values()) == {errno.errorcode[errno.ENOSYS]}, said


def test_the_filter_is_for_this_machine_s_interface_alone() -> None:
    """A 32-bit call has other numbers: the last word of the program is a refusal, whatever the interface."""
    code = calls.program(platform.machine())
    assert code[-4:] == (0x00050000 | errno.ENOSYS).to_bytes(4, sys.byteorder)
