"""The system calls that the proxy lives on.

Law: a table, and its filter: numbers of two architectures, from the kernel's own headers (asm/unistd.h). What is not
here the proxy has no use for: no other program, no other process, no file to write, no connection of its own making.
"""

from __future__ import annotations

from dnsfw.errors import SetupError
from dnsfw.machine import seccomp

# name: (x86-64, AArch64)
CALLS: dict[str, tuple[int, int]] = {
    # What is open
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "close": (3, 57),
    "lseek": (8, 62), "fcntl": (72, 25), "fstat": (5, 80), "pipe2": (293, 59), "eventfd2": (290, 19),
    # Python's library and the roots, read late: all that there is to open
    "openat": (257, 56), "newfstatat": (262, 79), "statx": (332, 291), "getdents64": (217, 61), "getcwd": (79, 17),
    "readlinkat": (267, 78), "faccessat": (269, 48), "faccessat2": (439, 439),
    # Connections
    "socketpair": (53, 199), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    "getsockname": (51, 204), "getpeername": (52, 205), "setsockopt": (54, 208), "getsockopt": (55, 209),
    "sendto": (44, 206), "recvfrom": (45, 207), "sendmsg": (46, 211), "recvmsg": (47, 212), "shutdown": (48, 210),
    # Waiting
    "ppoll": (271, 73), "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441), "futex": (202, 98), "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "gettimeofday": (96, 169), "sched_yield": (24, 124),
    "restart_syscall": (219, 128),
    # Memory
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214),
    # Itself
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getrandom": (318, 278), "getrusage": (98, 165),
    "sched_getaffinity": (204, 123), "exit": (60, 93), "exit_group": (231, 94),
    # Older forms of some of these, which AArch64 never had
    "poll": (7, 73), "select": (23, 72), "epoll_wait": (232, 22), "stat": (4, 79), "lstat": (6, 79),
    "readlink": (89, 78), "access": (21, 48),
}  # fmt: skip
_DESCRIPTORS = (0x5421, 0x5451, 0x5450, 0x541B, 0x5401)  # FIONBIO, FIOCLEX, FIONCLEX, FIONREAD, TCGETS: none gives away
_IOCTL = (16, 29)
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH (<linux/audit.h>)


def program(machine: str) -> bytes:
    """The filter for a machine as platform.machine() names it. Raises SetupError for an unknown one."""
    if machine not in _ARCHITECTURES:
        raise SetupError(
            f"dnsfw knows no system calls of {machine}.", f"It knows those of {', '.join(_ARCHITECTURES)}."
        )
    arch, column = _ARCHITECTURES[machine]
    numbers = {call[column] for call in CALLS.values()}
    arguments = {_IOCTL[column]: (seccomp.ARG1, _DESCRIPTORS)}
    return seccomp.only(arch, sorted(numbers), arguments)
