"""Taking the measures, and taking them back.

Law: the shell around `sudoers` and `acl`. `Undo` is all that taking back needs; it is remembered before anything is
changed, and `take_back` may meet any part of it done or not done.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dnsfw.errors import SetupError, UsageError
from dnsfw.lockdown import acl, sudoers
from dnsfw.lockdown.wanted import Lockdown, Undo
from dnsfw.machine.namespaces import bind, unmount

_CONTAINER_SOCKETS = (
    "run/docker.sock",
    "run/containerd/containerd.sock",
    "run/k3s/containerd/containerd.sock",
    "run/podman/podman.sock",
    "run/crio/crio.sock",
    "run/buildkit/buildkitd.sock",
    "run/incus/unix.socket",
    "var/lib/incus/unix.socket",
    "var/lib/lxd/unix.socket",
    "var/snap/lxd/common/lxd/unix.socket",
)
_CLONE = "kernel/unprivileged_userns_clone"  # Debian's and Ubuntu's own: it leaves root's alone
_MAXIMUM = "user/max_user_namespaces"
_YAMA = "kernel/yama/ptrace_scope"  # 2: with CAP_SYS_PTRACE alone (Documentation/admin-guide/LSM/Yama.rst)


@dataclass(frozen=True, slots=True)
class Host:
    """Where the host's files are: a directory of its own in tests."""

    root: Path = Path("/")

    @property
    def sudoers(self) -> Path:
        return self.root / "etc/sudoers"

    def sysctl(self, name: str) -> Path:
        return self.root / "proc/sys" / name


class Hold:
    """The measures in force. `directory` is the run's own; `remember` writes down what there is to be undone."""

    def __init__(
        self, wanted: Lockdown, directory: Path, remember: Callable[[Undo], None], host: Host = Host()
    ) -> None:
        self._wanted = wanted
        self._directory = directory
        self._remember = remember
        self._host = host
        self._undo = Undo()

    def take(self) -> None:
        """All that is wanted. Raises SetupError or UsageError; what was taken until then is for `take_back`."""
        if self._wanted.ptrace:
            self._set(_YAMA, "2", "This kernel has no Yama, so ptrace(2) can't be restricted.")
        if self._wanted.user_namespaces:
            name = _CLONE if self._host.sysctl(_CLONE).exists() else _MAXIMUM
            self._set(name, "0", "This kernel has no user namespaces to restrict.")
        if self._wanted.containers:
            self._close_sockets(_uid(self._wanted.containers))
        if self._wanted.sudo:
            self.sudo(on=False)

    def sudo(self, *, on: bool) -> None:
        """Give the user sudo back, or take it. Either may be asked for twice. Raises SetupError or UsageError."""
        if not self._wanted.sudo:
            raise UsageError("This guard has taken sudo from nobody.", "Start it with --lock-sudo USER.")
        if on:
            _unmount(self._undo.sudoers)
            self._note(sudoers="")
        elif not self._undo.sudoers:
            self._take_sudo(_uid(self._wanted.sudo))

    def held(self) -> tuple[str, ...]:
        """In words, for `dnsfw status`."""
        words = []
        if self._wanted.sudo:
            words.append(f"{self._wanted.sudo} {'has no sudo' if self._undo.sudoers else 'has sudo again'}")
        if self._undo.lists:
            words.append(f"container sockets closed to {self._wanted.containers} ({len(self._undo.lists)})")
        elif self._wanted.containers:
            words.append(f"no container socket to close to {self._wanted.containers}")
        if self._wanted.user_namespaces:
            words.append("no user namespaces")
        if self._wanted.ptrace:
            words.append("ptrace for root alone")
        return tuple(words)

    def _note(self, **changes: object) -> None:
        self._undo = msgspec.structs.replace(self._undo, **changes)
        self._remember(self._undo)

    def _set(self, name: str, value: str, missing: str) -> None:
        """Lower what users may do; never raise it."""
        path = self._host.sysctl(name)
        try:
            before = path.read_text(encoding="ascii").strip()
        except OSError:
            raise SetupError(missing, "Leave that option away.") from None
        if before == value or (name == _YAMA and before == "3"):
            return
        self._note(sysctls={**self._undo.sysctls, name: before})
        path.write_text(value, encoding="ascii")

    def _close_sockets(self, uid: int) -> None:
        for name in _CONTAINER_SOCKETS:
            path = self._host.root / name
            if path.exists():
                self._close(path, uid)

    def _close(self, path: Path, uid: int) -> None:
        before = _list_of(path)
        after = acl.without(before, path.stat().st_mode, uid)
        self._note(lists={**self._undo.lists, str(path): None if before is None else before.hex()})
        try:
            os.setxattr(path, acl.ATTRIBUTE, after)
        except OSError as error:
            raise SetupError(f"{path} can't be closed to one user: {error.strerror}.") from error

    def _take_sudo(self, uid: int) -> None:
        """Another file is shown in the place of sudoers, from one moment to the next; the file itself is not touched,
        and a reboot has it back."""
        target = self._host.sudoers
        try:
            text = sudoers.denying(target.read_bytes(), uid)
        except FileNotFoundError:
            raise SetupError(f"There is no {target}: nobody has sudo here.", "Leave --lock-sudo away.") from None
        made = self._directory / "sudoers"
        made.unlink(missing_ok=True)
        with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o440), "wb") as file:  # noqa: PTH123
            file.write(text)
        _validate(made)
        self._note(sudoers=str(target))
        bind(str(made), str(target))


def require_first_mounts() -> None:
    """What is mounted here has to be seen by all of the host. Raises SetupError."""
    ours, first = (Path(f"/proc/{pid}/ns/mnt").stat().st_ino for pid in ("self", "1"))
    if ours != first:
        raise SetupError(
            "sudo can't be taken away from a service that has mounts of its own.",
            "With the option in /etc/dnsfw/config.toml, call dnsfw install-service again.",
        )


def take_back(undo: Undo, host: Host = Host()) -> None:
    """Have all as it was, as far as it is not already. Never raises: each part for itself."""
    _unmount(undo.sudoers)
    for path, before in undo.lists.items():
        with suppress(OSError):  # the engine that it belonged to is gone
            if before is None:
                os.removexattr(path, acl.ATTRIBUTE)
            else:
                os.setxattr(path, acl.ATTRIBUTE, bytes.fromhex(before))
    for name, value in undo.sysctls.items():
        with suppress(OSError):
            host.sysctl(name).write_text(value, encoding="ascii")


def _unmount(target: str) -> None:
    with suppress(OSError):  # EINVAL: nothing is mounted there
        if target:
            unmount(target)


def _uid(name: str) -> int:
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        raise UsageError(f"There is no user {name} on this machine.") from None
    if uid == 0:
        raise UsageError("Nothing can be taken from root.", "Name the user whom the guarded programs run as.")
    return uid


def _list_of(path: Path) -> bytes | None:
    try:
        return os.getxattr(path, acl.ATTRIBUTE)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


def _validate(file: Path) -> None:
    """By visudo(8), in the file that will be shown. Raises SetupError."""
    visudo = shutil.which("visudo")
    if visudo is None:
        raise SetupError("visudo is missing, so sudoers can't be checked.", "Install the package sudo.")
    said = subprocess.run([visudo, "--check", "--quiet", f"--file={file}"], capture_output=True, text=True, check=False)
    if said.returncode != 0:
        detail = (said.stderr or said.stdout).strip().splitlines()[:1]
        raise SetupError(f"sudoers is not valid with our line in it: {' '.join(detail)}", "Mend it: sudo visudo")
