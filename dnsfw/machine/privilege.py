"""Giving up privilege: capabilities, users, no-new-privileges.

Law: the only file that calls prctl(2) and capset(2). Everything here takes away; nothing gives.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

from dnsfw.errors import SetupError

_libc = ctypes.CDLL(None, use_errno=True)

# <linux/prctl.h>, <linux/capability.h>
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 4, 8
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522


class Capability(IntEnum):
    """The capabilities that we keep anywhere (capabilities(7)); all others are always given up."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    SYS_CHROOT = 18
    SYS_PTRACE = 19
    SYS_NICE = 23
    AUDIT_WRITE = 29
    SETFCAP = 31
    BPF = 39


# What a command of root's may keep: files, users and priorities, nothing that reaches packets, mounts, other
# processes' memory, BPF, devices or the kernel. Other users' commands keep nothing.
HARMLESS_TO_THE_GUARD = (
    Capability.CHOWN, Capability.DAC_OVERRIDE, Capability.FOWNER, Capability.FSETID, Capability.KILL,
    Capability.SETGID, Capability.SETUID, Capability.SETPCAP, Capability.NET_BIND_SERVICE, Capability.SYS_CHROOT,
    Capability.SYS_NICE, Capability.AUDIT_WRITE, Capability.SETFCAP,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class User:
    """Who a process runs as. `groups` are its supplementary group ids."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str

    def environment(self) -> dict[str, str]:
        """The variables that name a user (environ(7))."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}


def calling_user(environ: Mapping[str, str]) -> User:
    """Who asked: the user behind sudo(8) or, without it, the one we run as.

    Raises SetupError on a bad SUDO_UID or SUDO_GID.
    """
    uid = _id(environ, "SUDO_UID", os.getuid())
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:  # containers and CI runners do have users without a passwd entry
        gid = _id(environ, "SUDO_GID", uid)
        return User(uid, gid, (gid,), str(uid), environ.get("HOME", "/"), "/bin/sh")
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return User(uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir, entry.pw_shell or "/bin/sh")


def _id(environ: Mapping[str, str], name: str, default: int) -> int:
    """The last 32-bit number is no id: to setresuid(2) it means "leave as it is"."""
    text = environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or int(text) >= 0xFFFFFFFF:
        raise SetupError(f"{name} is {text!r}, which is not an id.", "Call dnsfw through sudo, or as root.")
    return int(text)


ROOT = User(0, 0, (0,), "root", "/root", "/bin/sh")


def become(user: User, keep: Iterable[Capability] = ()) -> None:
    """Turn into `user` for ever, holding no capability but `keep`, and forbid gaining any (no_new_privs).

    The bounding set shrinks to `keep` too, so that root's execve(2) gives no more back. Raises OSError.
    """
    kept = frozenset(keep)
    _shrink_bounding_set(kept)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _prctl(_PR_SET_KEEPCAPS, 1 if kept else 0)
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    _capset(sum(1 << capability for capability in kept))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


@contextmanager
def acting_as(user: User) -> Iterator[None]:
    """Files are opened with this user's rights for a while (credentials(7): effective ids)."""
    groups = os.getgroups()
    os.setgroups(user.groups)
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def die_with_parent() -> None:
    """SIGKILL for us when our parent is gone. A change of user clears it, so call it after `become`."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def undumpable() -> None:
    """No core file and no ptrace by processes of the same user (prctl(2), PR_SET_DUMPABLE)."""
    _prctl(_PR_SET_DUMPABLE, 0)


def _shrink_bounding_set(kept: frozenset[Capability]) -> None:
    for capability in range(64):  # of a 64-bit mask; above the kernel's last, it knows none
        if capability not in kept and _libc.prctl(_PR_CAPBSET_READ, ctypes.c_ulong(capability), 0, 0, 0) >= 0:
            _prctl(_PR_CAPBSET_DROP, capability)


def _capset(mask: int) -> None:
    """Set the effective and permitted sets to `mask`, the inheritable set to nothing (capset(2))."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _check(_libc.capset(header, data))


def _prctl(option: int, argument: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
