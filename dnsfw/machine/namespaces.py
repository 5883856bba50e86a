"""Namespaces and mounts as context managers.

Law: the only file that makes or enters a namespace or calls mount(2). Namespaces are never given a name: they are
held by file descriptors and processes, so the kernel removes them when the last of those is gone, SIGKILL included.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

_libc = ctypes.CDLL(None, use_errno=True)

# <sys/mount.h>
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 2, 4, 8, 32, 4096, 16384
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2
# netdevice(7); <linux/sockios.h>, <linux/if.h>
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


class NetworkNamespace:
    """A new network namespace, alive as long as this object or a process in it. It has loopback, and nothing else."""

    def __init__(self) -> None:
        with _restored("net", os.CLONE_NEWNET):
            os.unshare(os.CLONE_NEWNET)
            _raise_loopback()
            self.fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    @property
    def path(self) -> str:
        """A path that other programs (ip-link(8)) can name the namespace by, while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def enter(self) -> None:
        """Move this thread in, for good."""
        os.setns(self.fd, os.CLONE_NEWNET)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside for a while. Sockets stay in the namespace that they were made in."""
        with _restored("net", os.CLONE_NEWNET):
            self.enter()
            yield


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


@contextmanager
def children_in_new_pid_namespace() -> Iterator[None]:
    """Processes forked inside are in a new PID namespace, the first of them as its PID 1 (pid_namespaces(7))."""
    with _restored("pid", os.CLONE_NEWPID):
        os.unshare(os.CLONE_NEWPID)
        yield


@contextmanager
def _restored(kind: str, flag: int) -> Iterator[None]:
    home = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        os.setns(home, flag)
        os.close(home)


def network_namespace_id(path: str = "/proc/self/ns/net") -> int:
    """The inode that names a network namespace while it lives."""
    return Path(path).stat().st_ino


def private_mounts() -> None:
    """Give this process a mount namespace of its own, from which nothing propagates."""
    os.unshare(os.CLONE_NEWNS)
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)


def mount_proc() -> None:
    """A /proc that shows this PID namespace only."""
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def bind(source: str, target: str) -> None:
    """Show `source` in the place of `target`."""
    _mount(source, target, None, _MS_BIND)


def unmount(target: str) -> None:
    """Take away what is mounted over `target`, even while it is in use (MNT_DETACH). Raises OSError."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def bind_read_only(target: str) -> None:
    """Make the tree at `target` read-only here (a bind mount on itself, remounted: mount(2))."""
    _mount(target, target, None, _MS_BIND | _MS_REC)
    _mount(None, target, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def show(source: str, target: str) -> None:
    """Show `source` in the place of `target`, read-only; programs in it may run."""
    bind(source, target)
    _mount(None, target, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


@contextmanager
def narrowed_root(directory: str) -> Iterator[None]:
    """An empty tmpfs at `directory`, to be filled inside; then it is this process's whole file system, read-only.

    Wants mounts of one's own (`private_mounts`).
    """
    _mount("tmpfs", directory, "tmpfs", _MS_NOSUID | _MS_NODEV)
    yield
    _mount(None, directory, None, _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    os.chroot(directory)
    os.chdir("/")


def hide_directory(target: str) -> None:
    """An empty read-only directory in the place of `target`."""
    _mount("tmpfs", target, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    raw = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    if _libc.mount(*raw, ctypes.c_ulong(flags), None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)
