"""Starting the guarded command.

Law: everything between fork and execve of the command: its namespaces, its mounts, its user, its lost privileges.
The command is in the guarded network namespace before it is anything else.
"""

from __future__ import annotations

import glob
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import NoReturn

from dnsfw.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_SETUP
from dnsfw.machine import cgroups, init, namespaces, seccomp
from dnsfw.machine.privilege import HARMLESS_TO_THE_GUARD, ROOT, Capability, User, become, die_with_parent

# Services outside the guard that would resolve, connect or start a process on a caller's behalf. A Unix socket with a
# path crosses network namespaces, so each is hidden. What a user starts by other means is in SECURITY.md, "Limits".
_HIDDEN = (
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/resolve/io.systemd.Resolve.Monitor",
    "/run/systemd/private",
    "/run/systemd/userdb/io.systemd.Home",
    "/run/dbus/system_bus_socket",
    "/run/nscd",
    "/run/avahi-daemon",
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/k3s",
    "/run/buildkit",
    "/run/podman",
    "/run/crio",
    "/run/libvirt",
    "/run/lxd.socket",
    "/run/incus",
    "/run/snapd.socket",
    "/run/snapd-snap.socket",
    "/run/screen",
    "/tmp/screens",  # noqa: S108 - hidden, not used
    "/run/cups",  # prints to any URI
    "/run/tor",
    "/run/tailscale",
    "/var/lib/lxd",
    "/var/snap/lxd/common/lxd",
)
_HIDDEN_OF_USER = (
    "/run/user/{uid}/bus",
    "/run/user/{uid}/systemd",
    "/run/user/{uid}/docker.sock",
    "/run/user/{uid}/podman",
    "/run/user/{uid}/gnupg/S.dirmngr",  # fetches any URL (KS_FETCH); the agent beside it stays
    "{home}/.gnupg/S.dirmngr",
    "/run/user/{uid}/pulse",  # streams to any address
    "/run/user/{uid}/pipewire-0",
    "/run/user/{uid}/pipewire-0-manager",
    "/run/user/{uid}/emacs",
    "/tmp/tmux-{uid}",  # noqa: S108 - hidden, not used
    "/run/user/{uid}/tmux-{uid}",
    "/tmp/zellij-{uid}",  # noqa: S108 - hidden, not used
    "/run/user/{uid}/zellij",
    "/tmp/nvim.{name}",  # noqa: S108 - hidden, not used
    "/run/user/{uid}/nvim.*",
    # Window managers start what they are told to.
    "/run/user/{uid}/i3",
    "/run/user/{uid}/sway-ipc.*",
    "/run/user/{uid}/hypr",
    "/run/user/{uid}/gvfsd",  # mounts from any address
    "/run/dnsfw",
)
_READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger", "/sys")
_RESOLV_CONF = "/etc/resolv.conf"


@dataclass(frozen=True, slots=True)
class Command:
    """What to start, as whom, where. `resolv_conf` is a file to be shown as /etc/resolv.conf; `descriptors` are our
    caller's, which the command gets, as no other; `views` are (source, target): what else is to be shown in whose
    place, read-only."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    user: User
    network: namespaces.NetworkNamespace
    cgroup: Path
    resolv_conf: Path
    descriptors: frozenset[int]
    views: Sequence[tuple[str, str]] = ()


def open_descriptors() -> frozenset[int]:
    """This process's."""
    listed = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    return frozenset(descriptor for descriptor in listed if _is_open(descriptor))  # the listing's own is closed by now


def _is_open(descriptor: int) -> bool:
    try:
        os.get_inheritable(descriptor)
    except OSError:
        return False
    return True


def start(command: Command) -> int:
    """Fork the command's PID 1; its pid here. That process ends with the command's exit status."""
    with namespaces.children_in_new_pid_namespace():
        pid = os.fork()
        if pid == 0:
            _in_child(command)
    return pid


def _in_child(command: Command) -> NoReturn:
    """Never returns, never lets an exception out: a child must not run its parent's code."""
    try:
        _withhold_all_but(command.descriptors)
        cgroups.join(command.cgroup)
        command.network.enter()
        _arrange_mounts(command)
        child = os.fork()
        if child == 0:
            _execute(command)
        become(ROOT, keep=[Capability.KILL])  # root, as the interpreter may lie where only root may read
        die_with_parent()
        seccomp.install(seccomp.own_program())  # a command of root's may trace it (ptrace(2)): no way around its own
        os.execv(sys.executable, [sys.executable, "-I", "-S", init.__file__, str(child)])
    except OSError as error:
        _complain(f"the command's surroundings can't be set up: {error}")
    finally:
        os._exit(EXIT_SETUP)


def _withhold_all_but(given: frozenset[int]) -> None:
    """None but the caller's survive an execve. Python's own never do; a library's may (libnftables' netlink socket)."""
    for descriptor in open_descriptors() - given:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - the system call's own


def _arrange_mounts(command: Command) -> None:
    namespaces.private_mounts()
    namespaces.mount_proc()
    target = Path(_RESOLV_CONF)
    if target.exists():
        namespaces.bind(str(command.resolv_conf), str(target.resolve()))
    for source, shown in command.views:  # before our own directories are out of sight, or shown as what programs trust
        namespaces.show(source, shown)
    known = {shown for _, shown in command.views}
    user = command.user
    own = {"uid": user.uid, "home": glob.escape(user.home), "name": glob.escape(user.name)}
    for pattern in (*_HIDDEN, *(pattern.format(**own) for pattern in _HIDDEN_OF_USER)):
        for path in map(str, Path("/").glob(pattern.lstrip("/"))):
            if path not in known:
                _hide(path)
    # All of cgroup2: a user may own cgroups, and a process that moves there is out of attribution's sight.
    for path in (*_READ_ONLY, str(cgroups.find_root())):
        if Path(path).exists():
            namespaces.bind_read_only(path)


def _hide(path: str) -> None:
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return  # not there
    if S_ISDIR(mode):
        namespaces.hide_directory(path)
    else:
        namespaces.bind("/dev/null", path)


def _execute(command: Command) -> NoReturn:
    try:
        become(command.user, keep=HARMLESS_TO_THE_GUARD if command.user.uid == 0 else ())
        seccomp.install(seccomp.own_program())
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these; its children shouldn't
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(command.argv[0], list(command.argv), dict(command.environ))
    except (FileNotFoundError, ValueError):  # the latter for an empty word
        _complain(f"{command.argv[0] or "''"}: command not found")
        os._exit(EXIT_NOT_FOUND)
    except OSError as error:
        _complain(f"{command.argv[0]}: {error.strerror}")
        os._exit(EXIT_NOT_EXECUTABLE)
    finally:
        os._exit(EXIT_SETUP)


def _complain(text: str) -> None:
    os.write(2, f"dnsfw: {text}\n".encode(errors="backslashreplace"))
