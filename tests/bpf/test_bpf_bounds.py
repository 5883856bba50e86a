"""Tables that are full: what is lost is unknown, never another's, and counted."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import pytest

from bpf import records
from policy.values import Flow, Proto, address
from tests.bpf.conftest import Bed
from tests.bpf.speakers import facts

pytestmark = pytest.mark.kernel("root", "netns", "nft", "bpf", "cgroup2")

MANY = """
s = udp("4"); s.bind(("10.9.9.1", 0)); port = s.getsockname()[1]
for host in range(1, 5):
    for to in range(1, 10001): s.sendto(b"x", ("198.51.100.%d" % host, to))
print(port, flush=True); wait()
"""
THREE = """
import time
to = sys.argv[2:]
socks = []
for host, port in zip(to[::2], to[1::2]):
    s = tcp("4"); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("10.9.9.1", int(sys.argv[1])))
    s.setblocking(False); s.connect_ex((host, int(port))); socks.append(s)
    say(6, "10.9.9.1", sys.argv[1], host, port); wait()
    time.sleep(0.02)  # the kernel's coarse clock is what tells old from new
"""


def test_flows_that_were_pushed_out_are_unknown_and_counted(bed: Bed) -> None:
    before = bed.owners.evicted()["flows"]
    speaker = bed.speaker(MANY)
    port = int(speaker.line())
    assert bed.owners.evicted()["flows"] - before >= 40_000 - bed.sources.attached.flows.shape.max_entries
    source = address("10.9.9.1")
    sent = [Flow(Proto.UDP, source, port, address(f"198.51.100.{host}"), to) for host in (1, 4) for to in (1, 10_000)]
    owners = [bed.owners.of(flow) for flow in sent]
    assert owners[0] is None
    assert owners[-1] == facts(speaker, bed)


def test_a_connection_is_lost_to_two_newer_ones_in_its_places(bed: Bed) -> None:
    """Three tuples that lead to one pair of places, which are found in a hundred thousand or so."""
    port, places = 40_404, bed.sources.attached.connections.shape.max_entries
    together = defaultdict[bytes, list[Flow]](list)
    for host, to in product(range(1, 255), range(2, 2000)):
        flow = Flow(Proto.TCP, address("10.9.9.1"), port, address(f"198.51.100.{host}"), to)
        alike = together[records.connection_places(records.flow_key(flow), places)[0]]
        alike.append(flow)
        if len(alike) == 3:
            break
    before = bed.owners.evicted()["connections"]
    ends = [str(part) for flow in alike for part in (flow.dst, flow.dport)]
    speaker = bed.speaker(THREE, str(port), *ends)
    assert speaker.flow() == alike[0]
    speaker.say("next")
    assert speaker.flow() == alike[1]
    assert [bed.owners.of(flow) for flow in alike[:2]] == [facts(speaker, bed)] * 2
    speaker.say("next")
    assert speaker.flow() == alike[2]
    assert [bed.owners.of(flow) for flow in alike] == [None, *[facts(speaker, bed)] * 2]
    assert bed.owners.evicted()["connections"] > before
