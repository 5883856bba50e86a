"""What is full, unusual or just at the edge of what a flow is.

Not tried, since it is one number for the whole machine: where conntrack's table is full, the kernel drops a new flow's
packets before any chain of ours sees them (net/netfilter/nf_conntrack_core.c, "too stressed to deal").
"""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests.firewall.street import ALLOWED, STRANGER, Street, guarding

pytestmark = pytest.mark.kernel("root", "netns", "nft", "nfqueue")

BOTH = pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
SIZE = 65_536  # of a set of leases
UDP_SEGMENT = 103  # <linux/udp.h>


@BOTH
def test_where_no_lease_is_free_each_datagram_is_judged_and_goes_on(street: Street, version: int) -> None:
    far = (STRANGER[version], ALLOWED)
    with guarding(street) as guard, street.outside.receive(version, *far) as sink, street.inside.udp(version) as sock:
        fill(street, version)
        for count in (1, 2, 3):
            sock.sendto(b"data", far)
            assert sink.recv(100) == b"data"
            assert len(guard.listener.seen(count)) == count


def fill(street: Street, version: int) -> None:
    near, far = street.inside.at[version], street.outside.at[version]
    elements = ", ".join(f"{near} . {number} . {far} . 9" for number in range(SIZE))
    with street.inside.namespace.entered():
        subprocess.run(
            ["nft", "-f", "-"], input=f"add element inet dnsfw lease{version} {{ {elements} }}", text=True, check=True
        )


@BOTH
def test_datagrams_that_the_kernel_is_to_cut_are_judged_one_by_one(street: Street, version: int) -> None:
    """NFQUEUE cuts them where its listener does not say that it takes them whole (NFQA_CFG_F_GSO); ours does not."""
    with guarding(street) as guard, street.inside.udp(version) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 500)
        with street.outside.receive(version, STRANGER[version], ALLOWED) as sink:
            sock.sendto(b"x" * 2000, (STRANGER[version], ALLOWED))
            assert [len(sink.recv(4000)) for _ in range(4)] == [500] * 4
            judged = len(guard.listener.seen(4))
            sock.sendto(b"x" * 2000, (STRANGER[version], ALLOWED))  # by lease
            assert [len(sink.recv(4000)) for _ in range(4)] == [500] * 4
        assert len(guard.listener.flows) == judged == 4
        assert guard.listener.malformed == []


@BOTH
def test_a_simultaneous_open_is_one_flow_of_ours(street: Street, version: int) -> None:
    """Their SYN is a reply to ours: it comes in, and our SYN-ACK goes out, unjudged (RFC 9293 figure 7)."""
    near, far = (street.inside.at[version], 40_000), (STRANGER[version], ALLOWED)
    lose = f"tcp dport {ALLOWED} tcp flags & (syn | ack) == syn drop"
    street.outside.run("nft", f"table inet lossy {{ chain in {{ type filter hook input priority 0; {lose}; }}; }}")
    with guarding(street) as guard, street.inside.tcp(version) as ours, street.outside.tcp(version) as theirs:
        ours.bind(near)
        theirs.bind(far)
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.connect(far)
        guard.listener.seen(1)
        theirs.connect(near)
        theirs.sendall(b"from outside")
        ours.settimeout(theirs.gettimeout())
        assert ours.recv(100) == b"from outside"
        ours.sendall(b"from inside")
        assert theirs.recv(100) == b"from inside"
        assert [(flow.sport, flow.dport) for flow in guard.listener.flows] == [(near[1], far[1])]
