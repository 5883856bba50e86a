"""What of the kernel this machine can give to tests.

Law: the only place where that is probed. A probe tries the real thing, in a process and a namespace of its own, and
leaves nothing.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

_BIND_A_QUEUE = """
from netfilterqueue import NetfilterQueue
queue = NetfilterQueue()
queue.bind(0, lambda packet: packet.drop())
queue.unbind()
"""

# BPF_MAP_TYPE_ARRAY of one 4-byte value, through the library that bcc itself loads.
_MAKE_A_BPF_MAP = """
import ctypes, pathlib, sys
if not pathlib.Path("/usr/lib/python3/dist-packages/bcc").is_dir():
    sys.exit(1)
sys.exit(ctypes.CDLL("libbcc.so.0").bcc_create_map(2, b"probe", 4, 4, 1, 0) < 0)
"""


def _works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _root() -> bool:
    return os.geteuid() == 0


def _netns() -> bool:
    return _works("unshare", "--net", "ip", "link", "set", "lo", "up")


def _nft() -> bool:
    return _works("unshare", "--net", "nft", "add table inet probe; list tables")


def _nfqueue() -> bool:
    return _works("unshare", "--net", sys.executable, "-c", _BIND_A_QUEUE)


def _bpf() -> bool:
    return _works(sys.executable, "-c", _MAKE_A_BPF_MAP)


def _cgroup2() -> bool:
    mounts = (line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines())
    for root in (target for _, target, kind, *_ in mounts if kind == "cgroup2"):
        try:
            Path(tempfile.mkdtemp(prefix="probe-", dir=root)).rmdir()
        except OSError:
            return False
        return True
    return False


_PROBES: dict[str, Callable[[], bool]] = {
    "root": _root,
    "netns": _netns,
    "nft": _nft,
    "nfqueue": _nfqueue,
    "bpf": _bpf,
    "cgroup2": _cgroup2,
}
ALL = tuple(_PROBES)


def nginx() -> str | None:
    """The program, which isn't in every PATH."""
    unpacked = Path(__file__).parents[1] / ".setup/nginx/usr/sbin"  # by scripts/setup.sh
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:{unpacked}")


def containerd() -> str | None:
    """The program, installed or unpacked."""
    unpacked = Path(__file__).parents[1] / ".setup/containerd/usr/bin"  # by scripts/setup.sh
    return shutil.which("containerd", path=f"{os.environ.get('PATH', '')}:{unpacked}")


def docker() -> str | None:
    """A PATH with all that Docker takes, installed or unpacked."""
    unpacked = Path(__file__).parents[1] / ".setup/docker/usr"  # by `scripts/setup.sh docker`
    path = f"{unpacked}/bin:{unpacked}/sbin:{os.environ.get('PATH', '')}:/usr/sbin"
    return path if all(shutil.which(one, path=path) for one in ("dockerd", "docker", "containerd", "runc")) else None


# Named by the tests that want one.
_PROGRAMS: dict[str, Callable[[], bool]] = {
    "nginx": lambda: nginx() is not None,
    "containerd": lambda: containerd() is not None,
    "docker": lambda: docker() is not None,
}


@functools.cache
def present(feature: str) -> bool:
    """Whether this machine has `feature`, one of ALL or a program. Raises KeyError for another word."""
    return (_PROBES | _PROGRAMS)[feature]()


def missing(features: Iterable[str]) -> list[str]:
    """Those of `features` that this machine lacks."""
    return [feature for feature in features if not present(feature)]
