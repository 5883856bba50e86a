"""The tiny internet beside a host that is really guarded: one device leads there, and documentation addresses only.

Law: what is made goes with this process: a namespace without a name, and the device whose other end is in it. No route
that the host has is changed; where documentation addresses lead somewhere already, nothing is made.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from dnsfw.errors import SetupError
from dnsfw.machine.namespaces import NetworkNamespace
from dnsfw.playground import atlas
from dnsfw.playground.arrival import Arrival
from dnsfw.playground.certificates import make_site_certificates
from dnsfw.playground.control import Child
from dnsfw.playground.wire import apply, internet_commands
from dnsfw.playground.world import ask_arrivals
from firewall.frames import FRAMES_TABLE
from firewall.nft import Nft, NftError

_READY_WITHIN: Final = 10.0
_COVERED_WITHIN: Final = 3.0  # seconds for a guard to notice a device


class HostBed:
    """`with HostBed() as bed: bed.run([…])` runs on the host itself. Raises SetupError, and then nothing is left."""

    def __init__(self) -> None:
        self.device = f"dnsfw-st{secrets.token_hex(2)}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            directory = tempfile.TemporaryDirectory(prefix="dnsfw-selftest-", ignore_cleanup_errors=True)
            self.directory = Path(stack.enter_context(directory))
            self.directory.chmod(0o755)  # the attempts are nobody's, and read the authority's certificate
            make_site_certificates(self.directory)
            internet = stack.enter_context(NetworkNamespace())
            host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, host)
            with internet.entered():
                apply(internet_commands(f"/proc/{os.getpid()}/fd/{host}", self.device))
            stack.callback(self._remove)
            apply(_host_commands(self.device))
            arguments = [str(internet.fd), str(self.directory), "--tap"]
            self._internet = stack.enter_context(Child("dnsfw.playground.internet", arguments, keep=[internet.fd]))
            self._internet.hear(within=_READY_WITHIN)
            _await_cover(self.device)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def authority(self) -> Path:
        return self.directory / "ca.pem"

    def run(
        self, command: Sequence[str], *, stdin: str = "", timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Raises subprocess.TimeoutExpired."""
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)

    def arrivals(self, token: str | None = None, *, within: float = 0.0) -> list[Arrival]:
        """As the playground's."""
        return ask_arrivals(self._internet, token, within)

    def _remove(self) -> None:
        with suppress(SetupError):  # gone with its other end
            apply(f"link del {self.device}\n")


def _host_commands(device: str) -> str:
    """ip-batch text: addresses and routes of their own, by this device."""
    lines = [f"addr add {atlas.LAPTOP.v4}/{atlas.LINK_V4_BITS} dev {device}"]
    lines += [f"addr add {atlas.LAPTOP.v6}/{atlas.LINK_V6_BITS} dev {device} nodad", f"link set {device} up"]
    lines += [f"route add {network} via {atlas.ROUTER.v4} dev {device}" for network in (atlas.GOOD_V4, atlas.EVIL_V4)]
    lines += [f"route add {network} via {atlas.ROUTER.v6} dev {device}" for network in (atlas.GOOD_V6, atlas.EVIL_V6)]
    return "\n".join(lines) + "\n"


def _await_cover(device: str) -> None:
    """Until the guard stops frames at this device too, where it does that at all: no later than attempts begin."""
    index = socket.if_nametoindex(device)
    deadline = time.monotonic() + _COVERED_WITHIN
    with Nft() as nft:
        while time.monotonic() < deadline:
            try:
                listed = nft.run(f"list table {FRAMES_TABLE}")
            except NftError:
                return
            if f"chain egress{index} " in listed:
                return
            time.sleep(0.05)
