"""The attempts: which ones, as whom, and against which guard.

Law: chooses and starts; ways are the malicious package's (dnsfw/playground/package), judging is `report`'s.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from dnsfw.errors import SetupError, UsageError
from dnsfw.place import engine_user
from dnsfw.playground import atlas
from dnsfw.playground.package.catalogue import WAYS
from dnsfw.playground.package.host import WAYS as HOST_WAYS
from dnsfw.playground.package.way import Way
from dnsfw.playground.rounds import Package
from dnsfw.playground.world import Playground, Setting
from dnsfw.selftest.bed import HostBed
from dnsfw.selftest.report import Report, result
from firewall.nft import Nft, NftError
from firewall.ruleset import TABLE

NOBODY: Final = 65534

# Of the package's ways, those that speak to the tiny internet's addresses and to nobody else, even if there is a hole.
# Others ask the host's own resolver or its services, or every device; HOST_WAYS has forms of most that don't.
_SAFE_ON_A_HOST: Final = frozenset(
    [
        "dns-foreign-udp4",
        "dns-foreign-udp6",
        "dns-foreign-tcp4",
        "dns-foreign-tcp6",
        "dns-behind",
        "dns-second",
        "dns-trailing",
        "dns-option",
        "dns-answer",
        "dns-not-udp",
        "dns-not-tcp",
        "dns-tls",
        "tcp4",
        "tcp6",
        "tcp-mapped",
        "tcp-other-port",
        "tcp-syn-data",
        "tcp-multipath",
        "address-spells",
        "udp4",
        "udp6",
        "udp-connected",
        "udp-443",
        "udp-123",
        "udp-fragments",
        "udp-lite",
        "so-mark",
        "https-address4",
        "https-address6",
        "https-borrowed-sni",
        "doh-address",
        "shared-sni4",
        "shared-sni6",
        "shared-no-sni",
        "shared-not-tls",
        "fronting",
        "ping4",
        "ping6",
        "raw-icmp",
        "raw-udp",
        "raw-protocols",
        "io-uring",
        "user-namespace",
    ]
)
ON_A_HOST: Final[tuple[Way, ...]] = (*(way for way in WAYS if way.id in _SAFE_ON_A_HOST), *HOST_WAYS)
# Sent as the guard's own user, whom it doesn't judge: what must arrive, or nothing is proven.
_PYTHON: Final = "/usr/bin/python3"  # any that every user may start
_CONTROL: Final = """
import socket, sys
for address in sys.argv[2:]:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as telling:
        telling.sendto(sys.argv[1].encode(), (address, 4444))
"""


def in_a_run(uid: int, only: Sequence[str] = ()) -> Report:
    """Under `dnsfw run` on the playground's laptop; first without it, which tells what is possible here at all. Raises
    UsageError."""
    ways = _chosen(WAYS, only)
    with Playground(Setting(stub_resolver=True)) as world:
        package = Package(world, uid)
        unguarded, guarded = package.unguarded(ways).attempts, package.guarded(ways).attempts
    return Report("run", tuple(result(way, guarded[way.id], unguarded[way.id]) for way in ways))


def on_this_host(uid: int, only: Sequence[str] = ()) -> Report:
    """Against the guard of the host. What the attempts are given is the one capability that may be lying around: raw
    and packet sockets, and marks of their own. Raises SetupError where they would prove nothing, and UsageError."""
    ways = _chosen(ON_A_HOST, only)
    if _audits():
        raise SetupError("The guard of this host is in audit mode: it denies nothing.", "Start it without --audit.")
    with HostBed() as bed:
        _control(bed)
        package = Package(bed, uid)
        attempts = package.round(package.as_user("+net_raw"), ways, bed.device).attempts
    return Report("up", tuple(result(way, attempts[way.id], None) for way in ways))


def _chosen(ways: Sequence[Way], only: Sequence[str]) -> tuple[Way, ...]:
    """Those with these ids; all of them if none is named. Raises UsageError."""
    unknown = set(only) - {way.id for way in ways}
    if unknown:
        raise UsageError(
            f"There is no attempt called {', '.join(sorted(unknown))} here.",
            f"Those that there are: {', '.join(way.id for way in ways)}.",
        )
    return tuple(way for way in ways if not only or way.id in only)


def _audits() -> bool:
    """Does the table in force accept what it has no word for?"""
    try:
        with Nft() as nft:
            return "policy accept" in nft.run(f"list chain {TABLE} enforce")
    except NftError:
        return False


def _control(bed: HostBed) -> None:
    token, user = secrets.token_hex(8), engine_user()
    as_guard = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups"]
    bed.run([*as_guard, _PYTHON, "-Ic", _CONTROL, token, *atlas.EVIL.addresses])
    for address in atlas.EVIL.addresses:
        if not any(one.destination[0] == address for one in bed.arrivals(token, within=3)):
            raise SetupError(
                f"Nothing arrives at {address}, not even from the guard's own user: nothing would be proven.",
                "Something else on this host drops or diverts it: another firewall, or a VPN's routes.",
            )
