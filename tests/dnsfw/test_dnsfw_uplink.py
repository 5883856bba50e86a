"""The uplink: text for ip(8) and nft(8), a range that nobody uses, and what the host's tables say."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dnsfw.errors import SetupError
from dnsfw.host import uplink
from dnsfw.host.uplink import HostNetwork, Link, choose_link, forwarding_sysctls, parse_host

POOLS = [IPv4Network("198.18.0.0/15"), IPv4Network("10.253.0.0/16")]
LINK = Link("dnsfw-abc123", IPv4Network("198.18.0.4/30"), IPv6Network("fd64:6e73:6677:1::/64"), 1400)

networks = st.builds(
    lambda number, bits: IPv4Network((number >> (32 - bits) << (32 - bits), bits)),
    st.integers(0, 0xFFFFFFFF) | st.sampled_from([int(pool[0]) for pool in POOLS]),
    st.integers(12, 32),
)
tokens = st.integers(0, 0xFFFF)


@settings(deadline=None)  # a busy machine proves nothing
@given(tokens, st.lists(networks, max_size=8))
def test_the_link_overlaps_nothing_that_is_taken(token: int, taken: list[IPv4Network]) -> None:
    assume(not any(pool.subnet_of(each) for pool in POOLS for each in taken))
    link = choose_link("x", token, taken, 1500)
    assert not any(link.v4.overlaps(each) for each in taken)
    assert any(link.v4.subnet_of(pool) for pool in POOLS)
    assert link.v6.subnet_of(IPv6Network("fd64:6e73:6677::/48"))
    ends = {link.host4, link.guarded4}
    assert len(ends) == 2
    assert ends <= set(link.v4.hosts())
    assert (link.host6, link.guarded6) == (link.v6[1], link.v6[2])


@settings(deadline=None)  # a busy machine proves nothing
@given(tokens, tokens)
def test_another_token_is_another_link(one: int, other: int) -> None:
    assume(one % 8192 != other % 8192)
    links = [choose_link("x", token, [], 1500) for token in (one, other)]
    assert not links[0].v4.overlaps(links[1].v4)
    assert not links[0].v6.overlaps(links[1].v6)


def test_the_next_run_takes_another_range() -> None:
    """Same token, a hundred times: what one has taken shows among the host's routes."""
    taken: list[IPv4Network] = []
    for _ in range(100):
        link = choose_link("x", 7, taken, 1500)
        assert not any(link.v4.overlaps(each) for each in taken)
        taken.append(link.v4)


def test_nothing_free_is_an_error_in_words() -> None:
    with pytest.raises(SetupError, match="No free address range"):
        choose_link("x", 0, POOLS, 1500)


def test_the_hosts_commands() -> None:
    assert uplink.host_commands(LINK, "/proc/1/fd/9") == (
        "link add dnsfw-abc123 mtu 1400 type veth peer name eth0 mtu 1400 netns /proc/1/fd/9\n"
        "addr add 198.18.0.5/30 dev dnsfw-abc123\n"
        "addr add fd64:6e73:6677:1::1/64 dev dnsfw-abc123 nodad\n"
        "link set dnsfw-abc123 up\n"
    )


def test_the_guarded_namespaces_commands() -> None:
    assert uplink.guarded_commands(LINK) == (
        "addr add 198.18.0.6/30 dev eth0\n"
        "addr add fd64:6e73:6677:1::2/64 dev eth0 nodad\n"
        "link set eth0 up\n"
        "route add default via 198.18.0.5\n"
        "route add default via fd64:6e73:6677:1::1\n"
    )


def test_the_nat_table() -> None:
    assert (
        uplink.nat_table(LINK, ["eth0", "wlan0"])
        == """\
table inet dnsfw-abc123 {
  flags owner;
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr 198.18.0.6 masquerade
    ip6 saddr fd64:6e73:6677:1::2 masquerade
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    oifname "dnsfw-abc123" ct state established,related accept
    oifname "dnsfw-abc123" drop
    iifname "dnsfw-abc123" ip saddr != 198.18.0.6 drop
    iifname "dnsfw-abc123" ip6 saddr != fd64:6e73:6677:1::2 ip6 saddr != fe80::/10 drop
    iifname { "eth0", "wlan0" } oifname { "eth0", "wlan0" } drop
  }
}
"""
    )


def test_a_host_that_forwarded_already_goes_on_forwarding() -> None:
    assert "iifname {" not in uplink.nat_table(LINK, [])


def host(v4: list[dict[str, Any]], v6: list[dict[str, Any]] | None = None) -> HostNetwork:
    links = [{"ifname": "eth0", "mtu": 1500}, {"ifname": "tun0", "mtu": 1420}, {"ifname": "lo", "mtu": 65536}]
    return parse_host(json.dumps(v4), json.dumps(v6 or []), json.dumps(links))


def test_what_a_usual_host_says() -> None:
    found = host(
        [
            {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
            {"dst": "192.0.2.0/24", "dev": "eth0"},
            {"type": "local", "dst": "127.0.0.1", "dev": "lo", "table": "local"},
            {"type": "unreachable", "dst": "10.1.0.0/16"},
        ],
        [
            {"dst": "default", "gateway": "fe80::1", "dev": "eth0"},
            {"dst": "fe80::/64", "dev": "tun0"},
            {"type": "local", "dst": "2001:db8::10", "dev": "lo", "table": "local"},
            {"type": "multicast", "dst": "ff00::/8", "dev": "tun0", "table": "local"},
        ],
    )
    assert set(map(str, found.taken)) == {"192.0.2.0/24", "127.0.0.1/32", "10.1.0.0/16"}
    assert (found.default4, found.routed6) == (("eth0",), ("eth0",))
    assert found.uplink_mtu() == 1500


def test_a_vpn_that_halves_the_internet_leaves_room() -> None:
    """OpenVPN's redirect-gateway def1: two routes that overlap every range there is."""
    found = host([{"dst": "0.0.0.0/1", "dev": "tun0"}, {"dst": "128.0.0.0/1", "dev": "tun0"}])
    assert choose_link("x", 0, found.taken, 1500).v4.subnet_of(POOLS[0])
    assert found.default4 == ("tun0",)
    assert found.uplink_mtu() == 1420


@pytest.mark.parametrize(
    ("route", "devices"),
    [
        ({"dst": "2001:db8:a::/48", "gateway": "fe80::1", "dev": "eth0"}, ("eth0",)),
        ({"dst": "default", "nexthops": [{"dev": "eth0"}, {"dev": "tun0"}]}, ("eth0", "tun0")),
        ({"dst": "default", "dev": "dnsfw-abc123"}, ()),
        ({"dst": "default", "dev": "lo", "type": "unreachable"}, ()),
        ({"dst": "fe80::/64", "dev": "eth0"}, ()),
    ],
    ids=["no default route", "multipath", "another run's", "unreachable", "link-local"],
)
def test_where_ipv6_leads_out(route: dict[str, Any], devices: tuple[str, ...]) -> None:
    assert host([], [route]).routed6 == devices


@pytest.mark.parametrize("text", ["", "[]"])
def test_a_host_without_a_network(text: str) -> None:
    found = parse_host(text, text, text)
    assert (found.taken, found.default4, found.routed6, found.uplink_mtu()) == ((), (), (), 1500)


@pytest.mark.parametrize(("mtu", "used"), [(1400, 1400), (9000, 9000), (576, 1280)])
def test_the_uplink_is_no_wider_than_the_way_out(mtu: int, used: int) -> None:
    assert HostNetwork((), ("eth0",), (), {"eth0": mtu}).uplink_mtu() == used


@pytest.mark.parametrize(
    ("routed6", "per_interface", "sysctls"),
    [
        ((), True, {"net/ipv4/ip_forward": "1"}),
        (("eth0",), True, {"net/ipv4/ip_forward": "1", "net/ipv6/conf/eth0/force_forwarding": "1"}),
        (
            ("eth0",),
            False,
            {
                "net/ipv4/ip_forward": "1",
                "net/ipv6/conf/eth0/accept_ra": "2",
                "net/ipv6/conf/all/forwarding": "1",
            },
        ),
    ],
    ids=["no IPv6", "for each interface", "host-wide"],
)
def test_the_sysctls(routed6: tuple[str, ...], per_interface: bool, sysctls: dict[str, str]) -> None:
    found = forwarding_sysctls(HostNetwork((), (), routed6, {}), per_interface_v6=per_interface)
    assert dict(found) == sysctls
    if len(found) == 3:  # all/forwarding last: with accept_ra at 1 the kernel would forget the routers meanwhile
        assert found[-1][0] == "net/ipv6/conf/all/forwarding"
