"""The wire between the laptop and the internet, and both ends' addresses and routes.

Law: text for ip(8) is made by pure functions, `wire_up` applies it. A file of its own beside `uplink`, so that the
playground stands without the guard.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from dnsfw.errors import SetupError
from dnsfw.machine.namespaces import NetworkNamespace
from dnsfw.playground import atlas

WIRE = "laptop"  # the internet's interface, named after who is at the other end


def wire_up(internet: NetworkNamespace, laptop: NetworkNamespace, *, default_route: bool) -> None:
    """Connect the two. Raises SetupError."""
    with internet.entered():
        _set("net/ipv6/conf/default/accept_dad", "0")
        apply(internet_commands(laptop.path))
    with laptop.entered():
        _set("net/ipv6/conf/default/accept_dad", "0")
        _set("net/ipv4/ping_group_range", "0 2147483647")  # as systemd sets it: anybody may ping
        apply(laptop_commands(default_route=default_route))


def internet_commands(laptop: str, device: str = "eth0") -> str:
    """ip-batch text for the internet's side; `laptop` is the path of the other namespace, `device` its end of it."""
    lines = ["link set lo up", f"link add {WIRE} type veth peer name {device} netns {laptop}"]
    lines.append(f"addr add {atlas.ROUTER.v4}/{atlas.LINK_V4_BITS} dev {WIRE}")
    lines.append(f"addr add {atlas.ROUTER.v6}/{atlas.LINK_V6_BITS} dev {WIRE} nodad")
    lines.append(f"link set {WIRE} up")
    for place in (*atlas.GOOD_PLACES, *atlas.EVIL_PLACES):
        lines += [f"addr add {place.v4}/32 dev lo", f"addr add {place.v6}/128 dev lo nodad"]
    lines.append(f"route add local {atlas.EVIL_V6} dev lo")
    return "\n".join(lines) + "\n"


def laptop_commands(*, default_route: bool) -> str:
    """ip-batch text for the laptop's side."""
    lines = ["link set lo up", f"addr add {atlas.LAPTOP.v4}/{atlas.LINK_V4_BITS} dev eth0"]
    lines += [f"addr add {atlas.LAPTOP.v6}/{atlas.LINK_V6_BITS} dev eth0 nodad", "link set eth0 up"]
    v4 = ["default"] if default_route else [atlas.GOOD_V4, atlas.EVIL_V4]
    v6 = ["default"] if default_route else [atlas.GOOD_V6, atlas.EVIL_V6]
    lines += [f"route add {network} via {atlas.ROUTER.v4}" for network in v4]
    lines += [f"route add {network} via {atlas.ROUTER.v6}" for network in v6]
    return "\n".join(lines) + "\n"


def apply(commands: str) -> None:
    """Give ip(8) text in the current network namespace. Raises SetupError."""
    try:
        subprocess.run(["ip", "-batch", "-"], input=commands, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise SetupError("The program ip is missing.", "Install the package iproute2.") from None
    except subprocess.CalledProcessError as error:
        raise SetupError(f"The playground's wire could not be made: {error.stderr.strip()}") from error


def _set(name: str, value: str) -> None:
    Path("/proc/sys", name).write_text(value, encoding="ascii")
