"""Off the street: programs in namespaces of their own behind the guarded host, as container engines arrange it.

Law: real bridges and veth pairs, NAT and a forward filter as Docker's (bridge) and as CNI's ptp plugin's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dnsfw.machine.namespaces import NetworkNamespace
from tests.firewall.street import PATIENCE, End, Street, built

type Kind = Literal["bridge", "ptp"]

PUBLISHED, SERVED = 8080, 80  # a port of the host's leads to one of the container's
BRIDGED = 5301  # the resolver's port for questions from here
_SYSCTL = Path("/proc/sys/net")
_NO_DAD = _SYSCTL / "ipv6/conf/default/accept_dad"  # nobody waits until an address is known to be nobody else's
_GATE = {4: "172.30.{}.1", 6: "fd30:{}::1"}
_HOME = {4: "172.30.{}.2", 6: "fd30:{}::2"}
_BITS = {4: 24, 6: 64}
_PROGRAMS = {4: "iptables-nft", 6: "ip6tables-nft"}

# As Docker sets up a network, with its forward filter closed but for what it knows.
_ENGINE = """\
*nat
:PREROUTING ACCEPT
:POSTROUTING ACCEPT
-A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport {published} -j DNAT --to-destination {home}:{served}
-A POSTROUTING -s {network} ! -o {device} -j MASQUERADE
COMMIT
*filter
:FORWARD DROP
-A FORWARD -o {device} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i {device} -j ACCEPT
-A FORWARD -o {device} -p tcp --dport {served} -j ACCEPT
COMMIT
"""


@dataclass(frozen=True, slots=True)
class Alley:
    """`host` is what tests guard, `container` is behind it, `outside` is the world. `device` is the host's end."""

    host: End
    outside: End
    container: End
    device: str

    @property
    def street(self) -> Street:
        """The same without the container."""
        return Street(self.host, self.outside)


@contextmanager
def alley(kind: Kind = "bridge") -> Iterator[Alley]:
    with built() as street:
        with street.inside.namespace.entered():
            for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                (_SYSCTL / switch).write_text("1", encoding="ascii")
            _NO_DAD.write_text("0", encoding="ascii")
        with behind(street, kind) as (container, device):
            yield Alley(street.inside, street.outside, container, device)


@contextmanager
def behind(street: Street, kind: Kind, number: int = 0) -> Iterator[tuple[End, str]]:
    """A container on a network of its own, `number` of them at most 9, and the host's device that leads there."""
    gate = {version: text.format(number) for version, text in _GATE.items()}
    home = {version: text.format(number) for version, text in _HOME.items()}
    with NetworkNamespace() as namespace:
        container, device = End(namespace, home), f"br{number}" if kind == "bridge" else f"c{number}"
        with namespace.entered():
            _NO_DAD.write_text("0", encoding="ascii")
        pair = f"link add c{number} type veth peer name eth0 netns {namespace.path}\nlink set c{number} up\n"
        bridge = f"link add {device} type bridge forward_delay 0\nlink set c{number} master {device}\n"
        street.inside.run("ip", "-batch", "-", stdin=pair + (bridge if kind == "bridge" else "") + _up(device, gate))
        container.run("ip", "-batch", "-", stdin=_up("lo", {}) + _up("eth0", home) + _routes(gate))
        for version, program in _PROGRAMS.items():
            _engine(street, program, device, home[version], f"{home[version]}/{_BITS[version]}")
        _wait(street, device)
        yield container, device


def _up(device: str, at: dict[int, str]) -> str:
    addresses = (f"addr add {at[v]}/{_BITS[v]} dev {device}{' nodad' if v == 6 else ''}\n" for v in at)
    return f"link set {device} up\n" + "".join(addresses)


def _routes(gate: dict[int, str]) -> str:
    return "".join(f"route add default via {address}\n" for address in gate.values())


def _engine(street: Street, program: str, device: str, home: str, network: str) -> None:
    quoted = f"[{home}]" if ":" in home else home
    text = _ENGINE.format(published=PUBLISHED, served=SERVED, home=quoted, network=network, device=device)
    street.inside.run(f"{program}-restore", "--noflush", stdin=text)


def _wait(street: Street, device: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while "state UP" not in (shown := street.inside.run("ip", "link", "show", device)):
        assert time.monotonic() < deadline, shown
        time.sleep(0.01)
