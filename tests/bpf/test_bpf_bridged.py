"""Owners of what comes from another network namespace, as a container's does by a bridge."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from bpf.compile import Extent
from bpf.loader import start_loading
from bpf.owners import Owners
from policy.values import address
from tests.bpf.conftest import JUDGED, PRELUDE, RESOLVER_PORT, Bed, Speaker, network_namespace, own_cgroup
from tests.bpf.speakers import PING, PINGS, STYLES, facts

pytestmark = pytest.mark.kernel("root", "netns", "nft", "bpf", "cgroup2")

# Far ends that answer nothing: what matters has been written down by then.
BRIDGE = """
link add inner type veth peer name outer
link set lo up
link set inner up
link set outer up
addr add 10.88.0.2/24 dev inner
addr add fd88::2/64 dev inner nodad
route add default via 10.88.0.1
route add default via fd88::1
neigh add 10.88.0.1 lladdr 02:00:00:00:00:01 dev inner nud permanent
neigh add fd88::1 lladdr 02:00:00:00:00:01 dev inner nud permanent
"""
FAMILIES = {
    "v4": ("4", "198.51.100.7", "10.88.0.2"),
    "v6": ("6", "2001:db8::7", "fd88::2"),
    "v4-mapped": ("mapped", "::ffff:198.51.100.7", "10.88.0.2"),
}
SYN = "tcp connect, non-blocking"
KINDS = [SYN, "udp sendto", "udp sendmsg", "udp connected", "udp connected, write", "udp connected, sendto elsewhere"]


@dataclass
class Behind:
    """A bed whose programs are those of a guard of a host's, and who speaks in a namespace behind a bridge of its."""

    bed: Bed
    owners: Owners
    sees_senders: bool

    def speaker(self, style: str, *arguments: str) -> Speaker:
        return self.bed.start([sys.executable, "-I", "-S", "-c", PRELUDE + STYLES[style], *arguments])


@pytest.fixture(scope="module", params=["senders", "users"])
def behind(shared_bed: Bed, request: pytest.FixtureRequest) -> Iterator[Behind]:
    """By the senders of packets, and by the users of sockets where those can't be seen: the one place for that is the
    shared bed's."""
    taken = replace(JUDGED, priorities=JUDGED.priorities[:1])
    judged = JUDGED if request.param == "senders" else taken
    with ExitStack() as stack:
        watched = stack.enter_context(own_cgroup("bridged"))
        with shared_bed.inside():
            loading = start_loading(watched, Extent(bridged=True, judged=judged))
        attached = stack.enter_context(loading.finish(20))
        assert attached.sees_senders == (request.param == "senders")
        attached.watch(RESOLVER_PORT)
        inside = replace(shared_bed, cgroup=watched, netns=stack.enter_context(network_namespace(BRIDGE)))
        stack.callback(shared_bed.silence)
        yield Behind(inside, Owners(replace(shared_bed.sources, attached=attached)), attached.sees_senders)


def test_what_comes_through_a_bridge(behind: Behind) -> None:
    for style in KINDS:
        for kind, destination, sender in FAMILIES.values():
            speaker = behind.speaker(style, kind, destination, "4242", sender)
            flow = speaker.flow()
            assert flow.src == address(sender), style
            assert behind.owners.of(flow) == facts(speaker, behind.bed), (style, destination)
            speaker.end()


def test_a_ping_through_a_bridge(behind: Behind) -> None:
    for kind, destination, sender in list(FAMILIES.values())[:2]:
        speaker = behind.bed.speaker(PING + PINGS["sendto"], kind, destination, sender)
        seen = facts(speaker, behind.bed) if behind.sees_senders else None
        assert behind.owners.of(speaker.flow()) == seen
        speaker.end()


def test_a_question_that_is_redirected_on_its_way(behind: Behind) -> None:
    """The resolver sees the container's address, and its own: where the question was sent to, it doesn't."""
    for style in (SYN, "udp sendto", "udp connected"):
        for kind, destination, sender in FAMILIES.values():
            speaker = behind.speaker(style, kind, destination, "53", sender)
            sent = speaker.flow()
            ours = address("fd88::1" if kind == "6" else "10.88.0.1")
            asked = sent.but(dst=ours, dport=RESOLVER_PORT)
            assert behind.owners.of(asked) == facts(speaker, behind.bed), (style, destination)
            speaker.end()
