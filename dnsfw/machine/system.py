"""What the machine's own configuration says.

Law: reads files of the host at start-up and turns them into values; judges nothing.
"""

from __future__ import annotations

from pathlib import Path

from dnsfw.errors import SetupError
from resolver.upstreams import Upstream, UpstreamError, upstream_from_system

_RESOLV_CONF = Path("/etc/resolv.conf")
_RESOLVED_UPLINKS = Path("/run/systemd/resolve/resolv.conf")  # systemd-resolved(8): the servers behind 127.0.0.53
_REMEDY = "Name a DNS server by its address: --upstream ADDR"


def system_upstreams(*, guarding_host: bool) -> tuple[Upstream, ...]:
    """The servers that this host asks. Raises SetupError.

    Where the host itself is guarded, a resolver on its loopback is guarded too: asking it would come back to us, so
    the servers behind it are meant.
    """
    found = _read(_RESOLV_CONF)
    if not guarding_host:
        return found
    outside = tuple(upstream for upstream in found if not upstream.address.is_loopback)
    if not outside and _RESOLVED_UPLINKS.exists():
        outside = tuple(upstream for upstream in _read(_RESOLVED_UPLINKS) if not upstream.address.is_loopback)
    if not outside:
        raise SetupError("This host's resolver is on the host itself, and would ask dnsfw in turn.", _REMEDY)
    return outside


def _read(path: Path) -> tuple[Upstream, ...]:
    try:
        return upstream_from_system(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise SetupError(f"{path} can't be read: {error.strerror}.", _REMEDY) from error
    except UpstreamError as error:
        raise SetupError(f"{path}: {error}.", _REMEDY) from error
