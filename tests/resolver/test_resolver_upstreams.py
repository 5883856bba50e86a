"""Upstream servers: which text names one, and who is asked first."""

from __future__ import annotations

import pytest

from resolver.upstreams import Standings, UpstreamError, parse_upstream, upstream_from_system

FIRST, SECOND, THIRD = (parse_upstream(f"192.0.2.{each}") for each in (1, 2, 3))


@pytest.mark.parametrize(
    ("text", "address", "port", "shown"),
    [
        ("1.1.1.1", "1.1.1.1", 53, "1.1.1.1"),
        ("127.0.0.1:5353", "127.0.0.1", 5353, "127.0.0.1:5353"),
        ("2606:4700:4700::1111", "2606:4700:4700::1111", 53, "[2606:4700:4700::1111]"),
        ("[2606:4700:4700::1111]", "2606:4700:4700::1111", 53, "[2606:4700:4700::1111]"),
        ("[::1]:5353", "::1", 5353, "[::1]:5353"),
        ("fe80::1%eth0", "fe80::1%eth0", 53, "[fe80::1%eth0]"),
        ("udp://1.1.1.1", "1.1.1.1", 53, "1.1.1.1"),
        ("tcp://1.1.1.1", "1.1.1.1", 53, "tcp://1.1.1.1"),
        ("tls://1.1.1.1", "1.1.1.1", 853, "tls://1.1.1.1"),
        ("tls://[::1]:8853#dns.example", "::1", 8853, "tls://[::1]:8853#dns.example"),
    ],
)
def test_what_names_an_upstream(text: str, address: str, port: int, shown: str) -> None:
    upstream = parse_upstream(text)
    assert (str(upstream.address), upstream.port, str(upstream)) == (address, port, shown)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("dns.google", "host name"),
        ("dns.google:53", "host name"),
        ("localhost", "host name"),
        ("", "not an IP address"),
        ("1.1.1", "not an IP address"),
        ("1.1.1.1:", "not a port"),
        ("1.1.1.1:0", "not a port"),
        ("1.1.1.1:65536", "not a port"),
        ("1.1.1.1:dns", "not a port"),
        ("1.1.1.1:٥٣", "not a port"),
        ("[::1]:", "not a port"),
        ("[::1", "[ADDR]:PORT"),
        ("[::1]53", "[ADDR]:PORT"),
        ("quic://1.1.1.1", "none of udp, tcp, tls"),
        ("://1.1.1.1", "none of udp, tcp, tls"),
        ("tls://dns.example#dns.example", "host name"),
        ("1.1.1.1#dns.example", "certificate"),
        ("tcp://1.1.1.1#dns.example", "certificate"),
    ],
)
def test_what_names_none_says_why(text: str, hint: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        parse_upstream(text)
    assert hint in str(caught.value)
    assert repr(text) in str(caught.value)


def test_the_systems_own_servers() -> None:
    text = "# nameserver 9.9.9.9\n; nameserver 9.9.9.8\nsearch example.com\nnameserver 127.0.0.53\n"
    text += "options edns0 trust-ad\nnameserver\t2001:db8::53  # trailing\nnameserver 127.0.0.53\n nameserver 9.9.9.7\n"
    assert [str(each) for each in upstream_from_system(text)] == ["127.0.0.53", "[2001:db8::53]"]


@pytest.mark.parametrize("text", ["", "search example.com\n", "nameserver\n", "nameserver dns.example\n"])
def test_a_system_without_a_server_is_an_error(text: str) -> None:
    with pytest.raises(UpstreamError):
        upstream_from_system(text)


@pytest.mark.parametrize(
    ("stub", "uplinks", "expected"),
    [
        pytest.param("nameserver 127.0.0.53\n", "nameserver 192.0.2.1\n", ["192.0.2.1"], id="resolved-in-between"),
        pytest.param("nameserver 127.0.0.53\n", "", ["127.0.0.53"], id="no-list-of-its-own"),
        pytest.param("nameserver 127.0.0.53\n", "# none\n", ["127.0.0.53"], id="no-uplink"),
        pytest.param("nameserver 192.0.2.9\n", "nameserver 192.0.2.1\n", ["192.0.2.9"], id="not-resolved's-stub"),
    ],
)
def test_real_servers_stand_in_for_resolveds_stub(stub: str, uplinks: str, expected: list[str]) -> None:
    assert [str(each) for each in upstream_from_system(stub, uplinks)] == expected


def test_the_configured_order_stands_until_something_is_known() -> None:
    assert Standings((FIRST, SECOND, THIRD)).ranked(0.0) == (FIRST, SECOND, THIRD)


def test_the_quickest_is_asked_first_and_the_silent_last_until_it_is_forgiven() -> None:
    standings = Standings((FIRST, SECOND, THIRD))
    for upstream, rtt in ((FIRST, 0.050), (SECOND, 0.010), (THIRD, 0.030)):
        standings.answered(upstream, rtt)
    assert standings.ranked(0.0) == (SECOND, THIRD, FIRST)
    standings.timed_out(SECOND, 1.0)
    assert standings.ranked(2.0) == (THIRD, FIRST, SECOND)
    assert standings.ranked(40.0)[0] == SECOND
