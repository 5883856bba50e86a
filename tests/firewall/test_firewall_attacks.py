"""Ways around judgement, each tried on the real kernel with a tap on the far side: nothing may have left."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace

import pytest

from firewall.ruleset import Plan
from tests.firewall.street import ALLOWED, PATIENCE, PLAN, STRANGER, Street, guarding

pytestmark = pytest.mark.kernel("root", "netns", "nft", "nfqueue")

BOTH = pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
OPEN = replace(PLAN, inbound="open")
DENIED = ALLOWED + 1
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
ETH_P_ALL = 3  # <linux/if_ether.h>
SO_BINDTODEVICE = 25  # <asm-generic/socket.h>
IPV6_FREEBIND, IPV6_RTHDR = 78, 57  # <linux/in6.h>


class Tap:
    """What arrives outside. Packets begin with their IP header."""

    def __init__(self, street: Street) -> None:
        self._street = street
        with street.outside.namespace.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.bind(("veth0", ETH_P_ALL))
        self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        self._socket.close()

    def packets(self) -> list[bytes]:
        """All until now: an allowed datagram, sent last, comes out of the queue last."""
        final = b"the last one"
        with self._street.inside.udp(4) as sock:
            sock.sendto(final, (STRANGER[4], ALLOWED))
        found: list[bytes] = []
        while not (packet := self.next()).endswith(final):
            found.append(packet)
        return found

    def to_strangers(self) -> list[bytes]:
        """Those packets that name one, wherever in them."""
        return [packet for packet in self.packets() if any(packed(address) in packet for address in STRANGER.values())]

    def next(self) -> bytes:
        while True:
            packet, (_, _, direction, *_) = self._socket.recvfrom(65536)
            if direction != socket.PACKET_OUTGOING:
                return packet


@pytest.fixture
def tap(street: Street) -> Iterator[Tap]:
    tap = Tap(street)
    try:
        yield tap
    finally:
        tap.close()


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def send(sock: socket.socket, far: tuple[str, int]) -> None:
    """Whatever the kernel says of it."""
    with suppress(OSError):
        sock.sendto(b"secret", far)


def spoof(street: Street, version: int, port: int) -> None:
    """A datagram to ourselves in the stranger's name. For IPv6 that takes no privilege."""
    near, far = street.inside.at[version], STRANGER[version]
    if version == 6:
        with street.inside.udp(6) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            sock.bind((far, port))
            sock.sendto(b"question", (near, port))
        return
    datagram = struct.pack("!4H8s", port, port, 16, 0, b"question")
    header = struct.pack("!BxHxxHBBH4s4s", 0x45, 20 + len(datagram), 0, 64, 17, 0, packed(far), packed(near))
    with street.inside.socket(4, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(header + datagram, (near, 0))


@BOTH
@pytest.mark.parametrize("plan", [PLAN, OPEN], ids=["closed", "open"])
def test_an_answer_to_a_question_that_we_sent_ourselves_is_judged(
    street: Street, tap: Tap, plan: Plan, version: int
) -> None:
    """To conntrack it is a reply."""
    with guarding(street, plan) as guard, street.inside.udp(version) as sock:
        sock.bind((street.inside.at[version], DENIED))
        spoof(street, version, DENIED)
        assert sock.recvfrom(100)[1][0] == STRANGER[version]
        send(sock, (STRANGER[version], DENIED))
        assert tap.to_strangers() == []
        assert [flow.dport for flow in guard.listener.flows] == [DENIED, ALLOWED]


@BOTH
@pytest.mark.parametrize("plan", [PLAN, OPEN], ids=["closed", "open"])
def test_an_error_carries_nothing_to_whose_name_was_borrowed(
    street: Street, tap: Tap, plan: Plan, version: int
) -> None:
    """The kernel's error about a datagram to a closed port repeats the datagram."""
    with guarding(street, plan) as guard:
        spoof(street, version, DENIED)
        guard.listener.seen(1)
        assert tap.to_strangers() == []


@BOTH
def test_an_error_about_a_reply_goes_on(street: Street, tap: Tap, version: int) -> None:
    """A late answer finds its port closed."""
    with street.outside.receive(version, street.outside.at[version], ALLOWED) as server, guarding(street):
        with street.inside.udp(version) as client:
            client.sendto(b"question", (street.outside.at[version], ALLOWED))
            _, peer = server.recvfrom(100)
        server.sendto(b"too late", peer)
        while not (b"too late" in (packet := tap.next()) and packet[9 if version == 4 else 6] in (1, 58)):
            pass


@BOTH
@pytest.mark.parametrize("plan", [OPEN, replace(OPEN, audit=True)], ids=["enforce", "audit"])
@pytest.mark.parametrize("refused", [False, True], ids=["taken", "refused"])
def test_an_answer_to_what_came_in_is_not_judged(street: Street, plan: Plan, version: int, refused: bool) -> None:
    """A refusal by a rule of the host's own is an answer too."""
    near = (street.inside.at[version], DENIED)
    if refused:
        chain = f"chain in {{ type filter hook input priority -10; tcp dport {DENIED} reject with tcp reset; }}"
        street.inside.run("nft", f"table inet theirs {{ {chain}; }}")
    with street.inside.listen(version, *near), guarding(street, plan) as guard, street.outside.tcp(version) as client:
        with pytest.raises(ConnectionRefusedError) if refused else nullcontext():
            client.connect(near)
        assert guard.listener.flows == []


@pytest.mark.parametrize(
    ("ports", "far", "judged"),
    [
        pytest.param((68, 67), STRANGER[4], True, id="v4-stranger"),
        pytest.param((546, 547), STRANGER[6], True, id="v6-stranger"),
        pytest.param((68, 67), "255.255.255.255", False, id="v4-link"),
        pytest.param((546, 547), "ff02::1:2", False, id="v6-link"),
    ],
)
def test_dhcp_asks_the_link_unjudged_and_nobody_else(
    street: Street, tap: Tap, ports: tuple[int, int], far: str, judged: bool
) -> None:
    with guarding(street, OPEN) as guard, street.inside.udp(6 if ":" in far else 4) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"veth0")
        sock.bind(("", ports[0]))
        send(sock, (far, ports[1]))
        assert tap.to_strangers() == []
        assert (ports[1] in [flow.dport for flow in guard.listener.flows]) is judged


def test_the_kernel_joins_groups_unjudged(street: Street, tap: Tap) -> None:
    with guarding(street) as guard, street.inside.udp(4) as sock:
        group = socket.inet_aton("239.1.2.3") + packed(street.inside.at[4])
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        while not is_igmp(tap.next()):
            pass
        assert guard.listener.flows == []


@pytest.mark.parametrize(("far", "ttl"), [(STRANGER[4], 1), ("239.1.2.3", 2)], ids=["stranger", "beyond-the-link"])
def test_other_igmp_is_judged(street: Street, tap: Tap, far: str, ttl: int) -> None:
    with guarding(street) as guard, street.inside.socket(4, socket.SOCK_RAW, socket.IPPROTO_IGMP) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
        sock.sendto(bytes(8), (far, 0))
        assert not any(is_igmp(packet) for packet in tap.packets())
        assert guard.listener.flows[0].proto == socket.IPPROTO_IGMP


def is_igmp(packet: bytes) -> bool:
    return packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_IGMP


def test_a_routing_header_is_covered_by_no_lease(street: Street, tap: Tap) -> None:
    """Any program may set one (segment routing): by way of an allowed host to a stranger."""
    allowed, stranger = packed(street.outside.at[6]), packed(STRANGER[6])
    header = struct.pack("!BBBBBxH16s16s", 0, 4, 4, 1, 1, 0, stranger, allowed)  # RFC 8754 section 2
    with guarding(street) as guard, street.inside.udp(6) as sock:
        sock.sendto(b"harmless", (street.outside.at[6], ALLOWED))
        guard.listener.seen(1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RTHDR, header)
        send(sock, (STRANGER[6], ALLOWED))
        assert tap.to_strangers() == []
        assert [str(error) for error in guard.listener.malformed] == ["IPv6 routing header"]


@pytest.mark.parametrize("plan", [PLAN, OPEN], ids=["closed", "open"])
@pytest.mark.parametrize(
    "group",
    [("224.0.0.251", 5353), ("ff02::fb", 5353), ("224.0.0.252", 5355), ("ff02::1:3", 5355), ("239.255.255.250", 1900)],
    ids=["mdns4", "mdns6", "llmnr4", "llmnr6", "ssdp"],
)
def test_names_are_not_asked_of_the_whole_link(street: Street, tap: Tap, plan: Plan, group: tuple[str, int]) -> None:
    """RFC 6762, RFC 4795: questions that no resolver of ours sees."""
    with guarding(street, plan) as guard, street.inside.udp(6 if ":" in group[0] else 4) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"veth0")
        send(sock, group)
        assert not any(b"secret" in packet for packet in tap.packets())
        assert group[1] in [flow.dport for flow in guard.listener.flows]


@BOTH
@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_another_s_translation_takes_no_question_away(street: Street, version: int, first: str) -> None:
    """Of those on one hook the first one wins, and container engines put theirs there at any time."""
    with street.inside.receive(version, LOOPBACK[version], PLAN.resolver_port) as resolver:
        if first == "theirs":
            street.inside.run("nft", translation(street, version, -100))
        with guarding(street), street.inside.udp(version) as client:
            if first == "ours":
                street.inside.run("nft", translation(street, version, -100))
            client.sendto(b"question", (STRANGER[version], 53))
            assert resolver.recv(100) == b"question"


@BOTH
def test_a_question_that_was_led_elsewhere_is_refused(street: Street, tap: Tap, version: int) -> None:
    street.inside.run("nft", translation(street, version, -120))
    with guarding(street) as guard:
        with street.inside.udp(version) as client:
            send(client, (STRANGER[version], 53))
        assert not any(b"secret" in packet for packet in tap.packets())
        assert guard.table.counters()["escaped"] == 1


@BOTH
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_a_question_bound_to_a_device_does_not_leave_by_it(
    street: Street, tap: Tap, version: int, kind: socket.SocketKind
) -> None:
    """Redirection gives it a loopback address and can't lead it to loopback. Nor do refusals reach such a socket."""
    with guarding(street) as guard, street.inside.socket(version, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"veth0")
        sock.setblocking(False)
        with pytest.raises(BlockingIOError if kind == socket.SOCK_STREAM else PermissionError):  # noqa: PT012 - of two
            sock.connect((STRANGER[version], 53))
            sock.send(b"secret")
        assert not any(packed(LOOPBACK[version]) in packet for packet in tap.packets())
        assert guard.table.counters()["escaped"] == 1


def translation(street: Street, version: int, priority: int) -> str:
    """nft text of somebody who leads questions to another port and address."""
    far = f"{street.outside.at[4]}:5353" if version == 4 else f"[{street.outside.at[6]}]:5353"
    rule = f"meta nfproto ipv{version} udp dport 53 dnat to {far};"
    return f"table inet theirs {{ chain out {{ type nat hook output priority {priority}; {rule} }}; }}"
