"""Bridges that lead nowhere but to this host's containers: told from what ip(8) shows, and passed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dnsfw.machine.namespaces import NetworkNamespace
from firewall.inner import InnerBridges, inner_bridges, shared_bridges
from firewall.nft import NftError
from firewall.ruleset import Plan
from tests.firewall.alley import BRIDGED, alley, behind
from tests.firewall.street import (
    BOTH,
    DENIED,
    KERNEL,
    QUEUE,
    REFUSALS,
    RESOLVER,
    STRANGER,
    End,
    guarding,
    nothing_arrived,
    refusal,
)

UP = Plan(RESOLVER, QUEUE, inbound="open", bridged_port=BRIDGED)


def link(name: str, kind: str = "", master: str = "") -> dict[str, Any]:
    """As ip(8) shows one."""
    shown: dict[str, Any] = {"ifname": name, "linkinfo": {"info_kind": kind}} if kind else {"ifname": name}
    return shown | ({"master": master} if master else {})


LO, HARDWARE = link("lo"), link("eth0")
DEFAULT = {"dst": "default", "gateway": "192.0.2.1", "dev": "br0"}


@pytest.mark.parametrize(
    ("links", "routes", "inner"),
    [
        pytest.param([LO, HARDWARE], [], set(), id="none"),
        pytest.param([LO, link("docker0", "bridge")], [], {"docker0"}, id="empty"),
        pytest.param([link("docker0", "bridge"), link("v1", "veth", "docker0")], [], {"docker0"}, id="container"),
        pytest.param([link("virbr0", "bridge"), link("vnet0", "tun", "virbr0")], [], {"virbr0"}, id="virtual-machine"),
        pytest.param([link("br0", "bridge"), link("eth0", "", "br0"), link("v1", "veth", "br0")], [], set(), id="nic"),
        pytest.param([link("br0", "bridge"), link("eth0.7", "vlan", "br0")], [], set(), id="vlan"),
        pytest.param([link("br0", "bridge"), link("vx0", "vxlan", "br0")], [], set(), id="tunnel"),
        pytest.param([link("br0", "bridge")], [DEFAULT], set(), id="way-out"),
        pytest.param([link("br0", "bridge")], [{"dst": "172.17.0.0/16", "dev": "br0"}], {"br0"}, id="on-link"),
    ],
)
def test_who_is_one(links: list[dict[str, Any]], routes: list[dict[str, Any]], inner: set[str]) -> None:
    assert inner_bridges(json.dumps(links), ["[]", json.dumps(routes)]) == inner


@pytest.mark.parametrize(
    ("links", "shared"),
    [
        pytest.param([LO, HARDWARE, link("br0", "bridge")], (), id="empty"),
        pytest.param([link("br0", "bridge"), link("v1", "veth", "br0")], (), id="containers"),
        pytest.param([link("br0", "bridge"), link("eth0", "", "br0")], (), id="nic"),
        pytest.param([link("br0", "bridge"), link("eth0", "", "br0"), link("v1", "veth", "br0")], ("br0",), id="both"),
        pytest.param(
            [link("br0", "bridge"), link("t0", "tun", "br0"), link("x", "vxlan", "br0")], ("br0",), id="tunnel"
        ),
    ],
)
def test_which_pass_us_by(links: list[dict[str, Any]], shared: tuple[str, ...]) -> None:
    assert shared_bridges(json.dumps(links)) == shared


@KERNEL
@BOTH
def test_the_host_speaks_to_its_containers_and_to_nobody_else_by_their_bridge(version: int) -> None:
    with alley() as place, guarding(place.street, UP) as guard, place.host.namespace.entered(), InnerBridges() as inner:
        here = (place.container.at[version], DENIED)
        with place.container.listen(version, *here) as server:
            with place.host.tcp(version) as client:
                assert refusal(client, here) in REFUSALS  # not known yet
            inner.update()
            with place.host.tcp(version) as client:
                client.connect(here)
                server.accept()[0].close()
        with place.outside.listen(version, STRANGER[version], DENIED) as sink, place.host.tcp(version) as client:
            assert refusal(client, (STRANGER[version], DENIED)) in REFUSALS
            assert nothing_arrived(sink)
        assert len(guard.listener.flows) == 2
        place.host.run("ip", "link", "add", "link", "veth0", "name", "nic0", "type", "macvlan")
        place.host.run("ip", "link", "set", "nic0", "master", place.device)
        assert not inner.shared
        inner.update()  # it leads out now
        assert inner.shared == (place.device,)
        with place.host.tcp(version) as client:
            assert refusal(client, here) in REFUSALS


@KERNEL
def test_containers_of_two_networks_speak_to_each_other() -> None:
    with alley() as place, behind(place.street, "bridge", 1) as (other, _), guarding(place.street, UP):
        with place.host.namespace.entered(), InnerBridges() as inner:
            inner.update()
        here = (other.at[4], 80)  # which the engine's own filter lets through
        with other.listen(4, *here) as server, place.container.tcp(4) as client:
            client.connect(here)
            server.accept()[0].close()


@KERNEL
@BOTH
def test_what_a_bridge_passes_from_port_to_port_is_its_own_affair(version: int) -> None:
    """Whether or not it hands that to IP: neighbour discovery and DHCP of its own are among it."""
    with alley() as place, NetworkNamespace() as namespace, guarding(place.street, UP) as guard:
        near = End(namespace, {4: "172.30.0.3", 6: "fd30:0::3"})
        place.host.run("sh", "-ec", HANDED_TO_IP.format(path=namespace.path))
        near.run("sh", "-ec", ADDRESSED)
        here = (near.at[version], DENIED)
        with near.listen(version, *here) as server, place.container.tcp(version) as client:
            client.connect(here)
            server.accept()[0].close()
        assert guard.listener.flows == []


HANDED_TO_IP = """
echo 1 | tee /proc/sys/net/bridge/bridge-nf-call-iptables > /proc/sys/net/bridge/bridge-nf-call-ip6tables
ip link add d0 type veth peer name eth0 netns {path}; ip link set d0 up; ip link set d0 master br0
"""
ADDRESSED = """
ip link set lo up; ip link set eth0 up
ip addr add 172.30.0.3/24 dev eth0; ip addr add fd30::3/64 dev eth0 nodad
"""


@KERNEL
def test_without_a_table_it_says_so() -> None:
    with alley() as place, place.host.namespace.entered(), InnerBridges() as inner, pytest.raises(NftError):
        inner.update()
