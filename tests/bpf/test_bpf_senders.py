"""Packets that wait for their verdict count for who sent them: pings, and sockets that were connected by another."""

from __future__ import annotations

import socket

import pytest

from bpf.owners import Owners
from policy.values import Flow, Proto, address
from tests.bpf.conftest import RESOLVER_PORT, Bed
from tests.bpf.speakers import FAMILIES, PING, PINGS, facts

pytestmark = pytest.mark.kernel("root", "netns", "nft", "bpf", "cgroup2")

WHERE = {family: FAMILIES[family] for family in ("v4", "v6")}
# A socket of each kind, made and connected by one process and used by another: `s` is made before, `use` after.
CONNECTED = {
    "tcp": 's = tcp("4"); s.connect(to); said = 6, *s.getsockname(), *to',
    "udp": 's = udp("4"); s.connect(to); said = 17, *s.getsockname(), *to',
}
PASS_ON = """
ours, theirs = socket.socketpair(); s.send(b"parent")
child = os.fork()
if child == 0:
    if sys.argv[1] == "SCM_RIGHTS": s = socket.socket(fileno=socket.recv_fds(theirs, 1, 1)[1][0])
    wait(); s.send(b"child"); print(os.getpid(), flush=True); wait(); os._exit(0)
if sys.argv[1] == "SCM_RIGHTS": socket.send_fds(ours, [b"x"], [s.fileno()])
say(*said); os.waitpid(child, 0)
"""


@pytest.mark.parametrize("family", WHERE)
@pytest.mark.parametrize("style", PINGS)
def test_owner_of_a_ping(bed: Bed, style: str, family: str) -> None:
    speaker = bed.speaker(PING + PINGS[style], *WHERE[family])
    flow, expected = speaker.flow(), facts(speaker, bed)
    assert flow.src == address(WHERE[family][2])
    assert bed.owners.of(flow) == expected
    assert (bed.older.of(flow), bed.searched.of(flow)) == (None, None)
    speaker.end()
    assert Owners(bed.sources).of(flow) == expected  # a new one: nothing cached


@pytest.mark.parametrize("family", WHERE)
def test_pings_of_two_processes_to_one_place_are_told_apart(bed: Bed, family: str) -> None:
    speakers = [bed.speaker(PING + PINGS["sendto"], *WHERE[family]) for _ in range(2)]
    flows = [speaker.flow() for speaker in speakers]
    assert [bed.owners.of(flow) for flow in flows] == [facts(speaker, bed) for speaker in speakers]


def test_an_identifier_that_two_processes_use_at_once_is_nobody_s(bed: Bed) -> None:
    speakers = [bed.speaker(PING + "wait()\n" + PINGS["raw"], *WHERE["v4"]) for _ in range(2)]
    for speaker in speakers:
        speaker.say("now")
    (flow,) = {speaker.flow() for speaker in speakers}
    assert bed.owners.of(flow) is None


@pytest.mark.parametrize("passing", ["fork", "SCM_RIGHTS"])
@pytest.mark.parametrize("kind", CONNECTED)
def test_a_connected_socket_counts_for_who_sends_on_it(bed: Bed, sink: int, kind: str, passing: str) -> None:
    to = f'to = ("198.51.100.7", {sink})\n'
    speaker = bed.speaker(to + CONNECTED[kind] + PASS_ON, passing)
    flow, connector = speaker.flow(), facts(speaker, bed)
    assert bed.owners.of(flow) == connector
    speaker.say("send")
    child = int(speaker.line())
    owner = bed.owners.of(flow)
    assert owner is not None
    assert (owner.pid, owner.argv) == (child, connector.argv)
    assert child != connector.pid
    speaker.say("end")


def test_what_a_raw_socket_sends_in_a_connection_s_name_is_nobody_s(bed: Bed, sink: int) -> None:
    script = """
import struct
s = tcp("4"); s.connect(("198.51.100.7", int(sys.argv[1]))); s.send(b"x"); say_connected(s, 6); wait()
if os.fork() == 0:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 6)
    ports = s.getsockname()[1], s.getpeername()[1]
    raw.sendto(struct.pack("!HHIIBBHHH", *ports, 1, 1, 5 << 4, 16, 1000, 0, 0) + b"y", ("198.51.100.7", 0)); os._exit(0)
os.wait(); print("sent", flush=True); wait()
"""
    speaker = bed.speaker(script, str(sink))
    flow = speaker.flow()
    assert bed.owners.of(flow) == facts(speaker, bed)
    speaker.say("go")
    assert speaker.line() == "sent"
    assert bed.owners.of(flow) is None
    assert bed.older.of(flow) == facts(speaker, bed)  # which can't see that


def test_a_question_counts_for_who_sends_it(bed: Bed) -> None:
    """On a socket that another process connected."""
    script = """
s = udp("4"); s.connect(("198.51.100.7", 53))
if os.fork() == 0: s.send(b"x"); print(os.getpid(), flush=True); wait(); os._exit(0)
os.wait()
"""
    with bed.resolver("127.0.0.1", socket.SOCK_DGRAM) as resolver:
        speaker = bed.speaker(script)
        child, (client, port) = int(speaker.line()), resolver.client()
    asked = Flow(Proto.UDP, address(client), port, address("127.0.0.1"), RESOLVER_PORT)
    owner = bed.owners.of(asked)
    assert owner is not None
    assert owner.pid == child != speaker.pid


@pytest.mark.parametrize("source", ["bpf", "older bpf"])
def test_questions_to_two_servers_from_one_port(bed: Bed, source: str) -> None:
    """As musl asks. Both are redirected to one place, so the kernel gives one of them another port."""
    script = """
s = udp("4"); s.bind(("", 0))
for server in ("198.51.100.7", "198.51.100.8"): s.sendto(b"x", (server, 53))
wait()
"""
    with bed.resolver("127.0.0.1", socket.SOCK_DGRAM) as resolver:
        speaker = bed.speaker(script)
        clients = [resolver.client() for _ in range(2)]
    assert len(set(clients)) == 2
    for client, port in clients:
        asked = Flow(Proto.UDP, address(client), port, address("127.0.0.1"), RESOLVER_PORT)
        assert bed.source(source).of(asked) == facts(speaker, bed)


def test_what_the_kernel_sends_again_stays_its_sender_s(bed: Bed, sink: int) -> None:
    """A segment that is lost on its way is sent again by a timer, in the time of whatever runs then."""
    script = """
import subprocess
nft = lambda *words: subprocess.run(["nft", *words], check=True, capture_output=True, text=True).stdout
nft("add chain inet bed lose { type filter hook output priority 5; }")
s = tcp("4"); s.connect(("198.51.100.7", int(sys.argv[1]))); sport = s.getsockname()[1]
nft("add counter inet bed lost")
nft(f"add rule inet bed lose tcp sport {sport} counter name lost drop")
busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count())]
s.send(b"x"); say_connected(s, 6)
while "packets 0 " in (said := nft("list counter inet bed lost")) or "packets 1 " in said: pass
for each in busy: each.kill()
print("again", flush=True); wait(); nft("delete chain inet bed lose")
"""
    speaker = bed.speaker(script, str(sink))
    flow = speaker.flow()
    assert speaker.line() == "again"
    owner = bed.owners.of(flow)
    assert owner is not None
    assert owner.pid == speaker.pid
    speaker.say("end")


def test_what_the_kernel_held_back_stays_its_sender_s(bed: Bed) -> None:
    """A full window opens in a call of the reader's, and the rest is sent before that returns."""
    script = """
there = socket.create_server(("10.9.9.1", 0)); there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
s = tcp("4"); s.connect(there.getsockname()); reader, _ = there.accept(); s.setblocking(False)
try:
    while True: s.send(bytes(4096))
except BlockingIOError: say_connected(s, 6)
if os.fork() == 0:
    for _ in range(64): reader.recv(4096)
    print("read", flush=True); wait(); os._exit(0)
os.wait()
"""
    speaker = bed.speaker(script)
    flow = speaker.flow()
    assert speaker.line() == "read"
    owner = bed.owners.of(flow)
    assert owner is not None
    assert owner.pid == speaker.pid
    speaker.say("end")


def test_what_the_kernel_wraps_is_nobody_s(bed: Bed) -> None:
    """A tunnel's datagrams are sent by a socket of the kernel's, in the time of whoever uses the tunnel."""
    script = """
import subprocess
ip = lambda words: subprocess.run(["ip", *words.split()], check=True)
ip("link add out type veth peer far"); ip("link set out up"); ip("link set far up")
ip("addr add 192.0.2.1/24 dev out")
ip("link add tunnel type vxlan id 1 remote 192.0.2.2 local 192.0.2.1 dstport 4789 srcport 5000 5001")
ip("link set tunnel up"); ip("addr add 203.0.113.1/24 dev tunnel")
ip("neigh add 203.0.113.2 lladdr 02:00:00:00:00:02 dev tunnel")
s = udp("4"); s.sendto(b"x", ("203.0.113.2", 9)); ip("link del tunnel"); ip("link del out")
say(17, "203.0.113.1", s.getsockname()[1], "203.0.113.2", 9); say(17, "192.0.2.1", 5000, "192.0.2.2", 4789); wait()
"""
    speaker = bed.speaker(script)
    inner, outer = speaker.flow(), speaker.flow()
    owner = bed.owners.of(inner)
    assert owner is not None
    assert owner.pid == speaker.pid
    before = bed.owners.counts["contested"]
    assert bed.owners.of(outer) is None
    assert bed.owners.counts["contested"] == before + 1  # it was seen
