"""What the proxy is left with: its user, a root with Python's library in it, the network, and few system calls.

Law: takes away, and gives nothing. It holds for whoever called it and all descendants; a proxy that was taken over can
use what it has open, and no more.
"""

from __future__ import annotations

import platform
import resource
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from dnsfw.inspection import calls
from dnsfw.machine import namespaces, seccomp
from dnsfw.machine.privilege import become, undumpable
from dnsfw.place import proxy_user

ROOTS = Path("/roots.pem")  # where the proxy finds the authorities that it verifies servers against
_CONNECTIONS = 16_384  # descriptors, at two a client
_MEMORY = 2 << 30


def confine(roots: bytes, directory: Path) -> None:
    """Leave the host's files and every privilege behind. `roots` is PEM; `directory` an empty one, to mount on.

    Wants root and one thread. Python's library stays in sight, as it is loaded in part when it is used. Raises OSError.
    """
    user = proxy_user()  # while there is an /etc/passwd
    namespaces.private_mounts()
    with namespaces.narrowed_root(str(directory)):
        (directory / ROOTS.name).write_bytes(roots)
        for library in libraries():
            place = directory / library.relative_to("/")
            place.mkdir(parents=True, exist_ok=True)
            namespaces.show(str(library), str(place))
    _limit(resource.RLIMIT_NOFILE, _CONNECTIONS)
    _limit(resource.RLIMIT_DATA, _MEMORY)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    become(user)
    undumpable()


def _limit(what: int, most: int) -> None:
    """For good. Where less is allowed already, that stays: root of a container can't raise it."""
    _, hard = resource.getrlimit(what)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (least, least))


def libraries() -> Iterable[Path]:
    """The folders of Python's own library and of installed packages; none of ours, nothing of a user's."""
    paths = sysconfig.get_paths()
    named = {Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return sorted(path for path in named if path.is_dir() and not any(path.is_relative_to(p) for p in named - {path}))


def confine_calls() -> None:
    """Leave but the system calls that the proxy lives on: it can start no process from here on. Raises OSError."""
    seccomp.install(calls.program(platform.machine()))
