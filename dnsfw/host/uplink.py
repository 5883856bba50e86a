"""The way out of a guarded namespace: a veth pair, addresses, and NAT on the host.

Law: text for ip(8), nft(8) and sysctl is made by pure functions; `Uplink` applies it and takes it back. The NAT table
is owned by our netlink socket and the veth pair dies with the namespace, so SIGKILL leaves only the forwarding
sysctls, which `runs` records.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from dnsfw.errors import SetupError
from dnsfw.machine.namespaces import NetworkNamespace
from firewall.nft import Nft, NftError

# RFC 2544's range is for devices under test and never on the Internet; 10/8's far end is the second choice.
_POOLS = (IPv4Network("198.18.0.0/15"), IPv4Network("10.253.0.0/16"))
# RFC 4193: a unique local prefix of our own ("dnsfw" in ASCII), a /64 for each uplink.
_ULA = IPv6Network("fd64:6e73:6677::/48")


@dataclass(frozen=True, slots=True)
class Link:
    """One uplink: the host's interface name and both ends' addresses; the far end is called eth0 inside."""

    name: str
    v4: IPv4Network
    v6: IPv6Network
    mtu: int

    @property
    def host4(self) -> IPv4Address:
        return self.v4[1]

    @property
    def guarded4(self) -> IPv4Address:
        return self.v4[2]

    @property
    def host6(self) -> IPv6Address:
        return self.v6[1]

    @property
    def guarded6(self) -> IPv6Address:
        return self.v6[2]


def choose_link(name: str, token: int, taken: Iterable[IPv4Network], mtu: int) -> Link:
    """A /30 that overlaps none of the host's routes, and a /64. `token` (16 random bits) spreads concurrent runs.

    Raises SetupError when every candidate is taken.
    """
    busy = tuple(taken)
    for pool in _POOLS:
        count = 1 << (30 - pool.prefixlen)
        for step in range(count):
            index = (token + step) % count
            v4 = IPv4Network((int(pool.network_address) + 4 * index, 30))
            if not any(v4.overlaps(other) for other in busy):
                v6 = IPv6Network((int(_ULA.network_address) + (index << 64), 64))
                return Link(name, v4, v6, mtu)
    raise SetupError("No free address range is left for the guarded namespace's uplink.", f"Free a /30 in {_POOLS[0]}.")


def host_commands(link: Link, namespace: str) -> str:
    """ip-batch text for the host's side: the pair, its far end inside `namespace` (a path)."""
    return (
        f"link add {link.name} mtu {link.mtu} type veth peer name eth0 mtu {link.mtu} netns {namespace}\n"
        f"addr add {link.host4}/30 dev {link.name}\n"
        f"addr add {link.host6}/64 dev {link.name} nodad\n"
        f"link set {link.name} up\n"
    )


def guarded_commands(link: Link) -> str:
    """ip-batch text for the inside. The default routes exist whatever the host's are: what the host can't
    reach it says so."""
    return (
        f"addr add {link.guarded4}/30 dev eth0\n"
        f"addr add {link.guarded6}/64 dev eth0 nodad\n"
        "link set eth0 up\n"
        f"route add default via {link.host4}\n"
        f"route add default via {link.host6}\n"
    )


def nat_table(link: Link, closed: Iterable[str]) -> str:
    """nft text: masquerade what comes from the guarded end, let it through, take nothing new towards it.

    `closed` are the interfaces that did not forward before we turned forwarding on: between those it stays off.
    """
    names = ", ".join(f'"{name}"' for name in closed)
    keep_closed = f"    iifname {{ {names} }} oifname {{ {names} }} drop\n" if names else ""
    return (
        f"table inet {link.name} {{\n"
        "  flags owner;\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat;\n"
        f"    ip saddr {link.guarded4} masquerade\n"
        f"    ip6 saddr {link.guarded6} masquerade\n"
        "  }\n"
        "  chain forward {\n"
        "    type filter hook forward priority filter; policy accept;\n"
        f'    oifname "{link.name}" ct state established,related accept\n'
        f'    oifname "{link.name}" drop\n'
        f'    iifname "{link.name}" ip saddr != {link.guarded4} drop\n'
        f'    iifname "{link.name}" ip6 saddr != {link.guarded6} ip6 saddr != fe80::/10 drop\n'
        f"{keep_closed}"
        "  }\n"
        "}\n"
    )


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """What the host's tables say: IPv4 networks in use, the interfaces that routes lead out of, the interfaces' MTUs in
    bytes. IPv6 may be routed without any default route."""

    taken: tuple[IPv4Network, ...]
    default4: tuple[str, ...]
    routed6: tuple[str, ...]
    mtu: dict[str, int]

    def uplink_mtu(self) -> int:
        """The smallest MTU among the interfaces that lead out; 1500 without any."""
        sizes = [self.mtu.get(device, 1500) for device in (*self.default4, *self.routed6)]
        return max(1280, min(sizes, default=1500))  # RFC 8200 section 5: no IPv6 link is smaller


def parse_host(routes4: str, routes6: str, links: str) -> HostNetwork:
    """From the JSON of ip-route(8) (`-4 … show table all`, `-6 … show table all`) and of `ip link show`."""
    v4 = [(_network(route, "0.0.0.0/0"), route) for route in json.loads(routes4 or "[]")]
    v6 = [(_network(route, "::/0"), route) for route in json.loads(routes6 or "[]")]
    return HostNetwork(
        taken=tuple({network: None for network, _ in v4 if isinstance(network, IPv4Network) and not _default(network)}),
        default4=_devices(route for network, route in v4 if _default(network)),
        routed6=_devices(route for network, route in v6 if _leads_out(network, route)),
        mtu={link["ifname"]: link["mtu"] for link in json.loads(links or "[]")},
    )


def _network(route: dict[str, Any], default: str) -> IPv4Network | IPv6Network:
    return ip_network(default if route["dst"] == "default" else route["dst"], strict=False)


def _default(network: IPv4Network | IPv6Network) -> bool:
    """VPNs cover the default route by two halves of everything."""
    return network.prefixlen < 8


def _leads_out(network: IPv4Network | IPv6Network, route: dict[str, Any]) -> bool:
    """ip(8) leaves out the type of the usual routes, which are `unicast`."""
    return route.get("type", "unicast") == "unicast" and not network.is_link_local and not network.is_multicast


def _devices(routes: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """The host's own: neither loopback nor an uplink of ours."""
    hops = (hop for route in routes for hop in route.get("nexthops", [route]))
    devices = dict.fromkeys(hop["dev"] for hop in hops if "dev" in hop)
    return tuple(device for device in devices if device != "lo" and not device.startswith("dnsfw"))


def forwarding_sysctls(host: HostNetwork, *, per_interface_v6: bool) -> tuple[tuple[str, str], ...]:
    """(name, value) of the sysctls that let the host pass packets on, in order of application.

    Linux decides IPv6 forwarding host-wide, and then ignores router advertisements unless accept_ra is 2; since 6.17
    `force_forwarding` says it for one interface (Documentation/networking/ip-sysctl.rst).
    """
    v4 = (("net/ipv4/ip_forward", "1"),)
    if not host.routed6:
        return v4
    if per_interface_v6:
        return v4 + tuple((f"net/ipv6/conf/{device}/force_forwarding", "1") for device in host.routed6)
    keep_ra = tuple((f"net/ipv6/conf/{device}/accept_ra", "2") for device in host.routed6)
    return (*v4, *keep_ra, ("net/ipv6/conf/all/forwarding", "1"))


def read_host() -> HostNetwork:
    """Ask ip(8). Raises SetupError."""
    return parse_host(
        ip("-4", "-json", "route", "show", "table", "all"),
        ip("-6", "-json", "route", "show", "table", "all"),
        ip("-json", "link", "show"),
    )


@contextmanager
def uplink(link: Link, namespace: NetworkNamespace, closed: Iterable[str]) -> Iterator[Nft]:
    """Both ends up, NAT in force; gone at exit. Yields the connection to nf_tables that owns the NAT.

    The host's sysctls are `runs`'s business: runs share them.
    """
    with Nft() as nft:
        try:
            nft.run(nat_table(link, closed))
        except NftError as error:
            raise SetupError(f"The uplink's NAT can't be set up: {error}") from error
        try:
            ip("-batch", "-", stdin=host_commands(link, namespace.path))
            _forward_from(link.name)
            with namespace.entered():
                ip("-batch", "-", stdin=guarded_commands(link))
            yield nft
        finally:
            subprocess.run(["ip", "link", "delete", link.name], check=False, capture_output=True)
            nft.run(f"delete table inet {link.name}")


def _forward_from(name: str) -> None:
    """Let our own interface forward IPv6 where that is said for each interface; it vanishes with the interface."""
    switch = Path("/proc/sys/net/ipv6/conf", name, "force_forwarding")
    if switch.exists():
        switch.write_text("1", encoding="ascii")


def ip(*arguments: str, stdin: str | None = None) -> str:
    """Run ip(8); its output. Raises SetupError with what it said."""
    try:
        done = subprocess.run(["ip", *arguments], input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SetupError("The program ip is missing.", "Install the package iproute2.") from None
    if done.returncode != 0:
        raise SetupError(f"ip {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout
