"""sock_diag against sockets of our own in a namespace of our own."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bpf.sockdiag import Found, SockDiag
from policy.values import Flow, Proto, address
from tests.bpf.conftest import Bed

pytestmark = pytest.mark.kernel("root", "netns", "nft", "bpf", "cgroup2")

SO_COOKIE = 57


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def flow_of(sock: socket.socket, proto: Proto) -> Flow:
    (src, sport, *_), (dst, dport, *_) = sock.getsockname(), sock.getpeername()
    return Flow(proto, address(src), sport, address(dst), dport)


def cookie(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")


FAMILIES = {
    "v4": (socket.AF_INET, "198.51.100.7"),
    "v6": (socket.AF_INET6, "2001:db8::7"),
    "v4-mapped": (socket.AF_INET6, "::ffff:198.51.100.7"),
}


@pytest.mark.parametrize("proto", [Proto.TCP, Proto.UDP])
@pytest.mark.parametrize("family", FAMILIES)
def test_connected_sockets(bed: Bed, sink: int, stack: ExitStack, family: str, proto: Proto) -> None:
    kind, host = FAMILIES[family]
    with bed.inside():
        stream = socket.SOCK_STREAM if proto == Proto.TCP else socket.SOCK_DGRAM
        sock = stack.enter_context(socket.socket(kind, stream))
        sock.connect((host, sink))
    flow = flow_of(sock, proto)
    assert bed.sources.diag.find(flow) == Found(cookie(sock), connected=True)
    assert flow in bed.sources.diag.established()
    if proto == Proto.TCP:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))  # close() resets: up no more
    sock.close()
    assert flow not in bed.sources.diag.established()


def test_an_unconnected_socket_is_found_and_said_to_be_unconnected(bed: Bed, stack: ExitStack) -> None:
    with bed.inside():
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind(("10.9.9.1", 0))
    flow = Flow(Proto.UDP, address("10.9.9.1"), sock.getsockname()[1], address("198.51.100.7"), 9)
    assert bed.sources.diag.find(flow) == Found(cookie(sock), connected=False)
    assert all(listed.sport != flow.sport for listed in bed.sources.diag.established())


def test_both_ends_of_a_connection_are_listed(bed: Bed, sink: int, stack: ExitStack) -> None:
    with bed.inside():
        sock = stack.enter_context(socket.create_connection(("198.51.100.7", sink)))
    flow = flow_of(sock, Proto.TCP)
    back = Flow(Proto.TCP, flow.dst, flow.dport, flow.src, flow.sport)
    assert {flow, back} <= set(bed.sources.diag.established())


def test_many_sockets_are_all_listed(bed: Bed, sink: int, stack: ExitStack) -> None:
    """More than one datagram of a dump can hold."""
    flows = set()
    with bed.inside():
        for _ in range(300):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.connect(("198.51.100.7", sink))
            flows.add(flow_of(sock, Proto.UDP))
    assert flows <= set(bed.sources.diag.established())


def test_nothing_found_is_none_and_the_next_question_is_answered(bed: Bed, sink: int, stack: ExitStack) -> None:
    absent = Flow(Proto.TCP, address("10.9.9.1"), 1, address("198.51.100.7"), 1)
    for _ in range(3):
        assert bed.sources.diag.find(absent) is None
    with bed.inside():
        sock = stack.enter_context(socket.create_connection(("198.51.100.7", sink)))
    assert bed.sources.diag.find(flow_of(sock, Proto.TCP)) == Found(cookie(sock), connected=True)


def test_what_an_unfinished_list_left_is_not_taken_for_an_answer(bed: Bed, sink: int, stack: ExitStack) -> None:
    with bed.inside():
        diag = stack.enter_context(SockDiag())
        socks = [stack.enter_context(socket.create_connection(("198.51.100.7", sink))) for _ in range(3)]
    question = struct.pack("=BBBBI", socket.AF_INET, Proto.TCP, 0, 0, 1 << 1) + bytes(48)
    next(diag._ask(question, 0x301))  # a dump, of which one socket is read
    for sock in socks:
        assert diag.find(flow_of(sock, Proto.TCP)) == Found(cookie(sock), connected=True)


def test_it_sees_the_namespace_that_it_was_made_in(bed: Bed, sink: int, stack: ExitStack) -> None:
    with bed.inside():
        sock = stack.enter_context(socket.create_connection(("198.51.100.7", sink)))
        inner = stack.enter_context(SockDiag())
    outer = stack.enter_context(SockDiag())
    flow = flow_of(sock, Proto.TCP)
    assert inner.find(flow) is not None
    assert outer.find(flow) is None
