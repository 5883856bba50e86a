"""A proxy, as a process of its own, for tests: `python -m tests.proxy.process GATE ROOTS HOSTS SECONDS LISTENER...`.

Law: arguments in, the authority's root and then a word on standard output, then the proxy's life.
"""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

from proxy.authority import make_authority
from proxy.process import Patience, ProxyConfig, run


def main(gate: str, roots: str, hosts: str, patience: str, *listeners: str) -> int:
    """Descriptors by number, hosts with commas between; `patience` with clients in seconds."""
    authority = make_authority(hosts.split(","), datetime.now(UTC))
    sys.stdout.write(authority.root_pem.decode())
    sockets = tuple(socket.socket(fileno=int(number)) for number in listeners)
    config = ProxyConfig(
        sockets, socket.socket(fileno=int(gate)), authority, Path(roots), Patience(int(patience), int(patience))
    )
    return run(config, lambda: print("ready", flush=True))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
