"""The queue's boundary: whatever goes wrong, every packet gets its answer, and that is a denial."""

from __future__ import annotations

import mmap
import os
import select
from contextlib import ExitStack
from socket import IPPROTO_ICMP as ICMP
from socket import IPPROTO_UDP as UDP
from socket import SOCK_RAW as RAW
from socket import SOL_SOCKET

import pytest

from firewall.answers import Answer
from firewall.packet import PacketError
from firewall.queue import Queue
from policy.values import Action, Flow
from tests.firewall.street import (
    ALLOWED,
    BOTH,
    KERNEL,
    PATIENCE,
    PLAN,
    QUEUE,
    STRANGER,
    Street,
    in_force,
    nothing_arrived,
)

pytestmark = KERNEL

# <asm-generic/socket.h>, <linux/udp.h>
ROOM = (SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
NO_CHECKSUM = (SOL_SOCKET, 11)
NO_CHECKSUM_V6, NO_CHECKSUM_NEEDED_V6 = (UDP, 101), (UDP, 102)


def allow(_flow: Flow, _packet: bytes) -> Answer:
    return Answer(Action.ALLOW)


def unexpected(error: BaseException, _data: bytes) -> None:
    raise error


def wait(queue: Queue) -> None:
    assert select.select([queue], [], [], PATIENCE)[0], "nothing was queued"


def test_a_report_that_fails_still_denies(street: Street) -> None:
    """And is the caller's to hear of: nothing is swallowed."""

    def judge(_flow: Flow, _packet: bytes) -> Answer:
        raise ValueError("broken on purpose")

    with street.inside.namespace.entered():
        queue = Queue(QUEUE, judge, unexpected, unexpected)
    far = (STRANGER[4], ALLOWED)
    with (
        street.outside.receive(4, *far) as sink,
        queue,
        in_force(street.inside, PLAN) as table,
        street.inside.udp(4) as client,
    ):
        client.sendto(b"x", far)
        wait(queue)
        with pytest.raises(ValueError, match="on purpose"):
            queue.drain()
        assert nothing_arrived(sink)
        assert table.counters()["refused"] == 1


@pytest.mark.parametrize(
    ("answers", "arrived"),
    [
        ([Answer(None), Answer(None), Answer(Action.ALLOW)], [b"0", b"1", b"2"]),
        ([Answer(None), Answer(Action.ALLOW, fresh=True)], [b"1"]),
        ([Answer(None), Answer(Action.DENY), Answer(Action.ALLOW)], [b"2"]),
        ([Answer(Action.ALLOW, instead=None)], [b"0"]),
    ],
    ids=["held and let go", "held of another", "held and denied", "at once"],
)
def test_what_is_held_gets_the_answer_of_its_flow(street: Street, answers: list[Answer], arrived: list[bytes]) -> None:
    told = iter(answers)
    with street.inside.namespace.entered():
        queue = Queue(QUEUE, lambda _flow, _packet: next(told), unexpected, unexpected)
    far = (STRANGER[4], ALLOWED)
    with (
        street.outside.receive(4, *far) as sink,
        queue,
        in_force(street.inside, PLAN),
        street.inside.udp(4) as client,
    ):
        for number in range(len(answers)):
            client.sendto(b"%d" % number, far)
            wait(queue)
            queue.drain()
        assert [sink.recv(10) for _ in arrived] == arrived
        assert nothing_arrived(sink)


def test_what_is_released_without_another_packet(street: Street) -> None:
    flows: list[Flow] = []

    def hold(flow: Flow, _packet: bytes) -> Answer:
        flows.append(flow)
        return Answer(None)

    with street.inside.namespace.entered():
        queue = Queue(QUEUE, hold, unexpected, unexpected)
    far = (STRANGER[4], ALLOWED)
    with (
        street.outside.receive(4, *far) as sink,
        queue,
        in_force(street.inside, PLAN),
        street.inside.udp(4) as client,
    ):
        client.sendto(b"x", far)
        wait(queue)
        queue.drain()
        assert nothing_arrived(sink)
        queue.release(flows[0], Action.ALLOW)
        assert sink.recv(10) == b"x"
        queue.release(flows[0], Action.ALLOW)  # twice is harmless


@pytest.mark.parametrize(("flows", "each", "held"), [(1, 40, 32), (40, 32, 1024)], ids=["of a flow", "in all"])
def test_no_more_is_held_than_leaves_room_for_others(street: Street, flows: int, each: int, held: int) -> None:
    refused: list[str] = []
    waiting: set[Flow] = set()

    def hold(flow: Flow, _packet: bytes) -> Answer:
        waiting.add(flow)
        return Answer(None)

    with street.inside.namespace.entered():
        queue = Queue(QUEUE, hold, unexpected, lambda error, _packet: refused.append(str(error)))
    far = (STRANGER[4], ALLOWED)
    with street.outside.receive(4, *far) as sink, queue, in_force(street.inside, PLAN), ExitStack() as stack:
        for client in [stack.enter_context(street.inside.udp(4)) for _ in range(flows)]:
            for _ in range(each):
                client.sendto(b"x", far)
            while select.select([queue], [], [], 0)[0]:
                queue.drain()
        assert refused == ["too many packets wait for what their clients have to say"] * (flows * each - held)
        sink.setsockopt(*ROOM)
        for flow in waiting:
            queue.release(flow, Action.ALLOW)
        assert [sink.recv(10) for _ in range(held)] == [b"x"] * held
        assert nothing_arrived(sink)


@BOTH
def test_what_leaves_is_what_was_judged(street: Street, version: int) -> None:
    """A program can send a file that it changes while the packet waits."""
    flows: list[Flow] = []

    def hold(flow: Flow, _packet: bytes) -> Answer:
        flows.append(flow)
        return Answer(None)

    with street.inside.namespace.entered():
        queue = Queue(QUEUE, hold, unexpected, unexpected)
    far = (STRANGER[version], ALLOWED)
    with (
        street.outside.receive(version, *far) as sink,
        queue,
        in_force(street.inside, PLAN),
        street.inside.udp(version) as client,
        open(os.memfd_create("words"), "r+b") as file,  # noqa: PTH123 - a descriptor, not a path
    ):
        file.truncate(mmap.PAGESIZE)
        with mmap.mmap(file.fileno(), mmap.PAGESIZE) as words:
            words[:4] = b"good"
            client.setsockopt(*(NO_CHECKSUM if version == 4 else NO_CHECKSUM_V6), 1)
            sink.setsockopt(*NO_CHECKSUM_NEEDED_V6, 1) if version == 6 else None
            client.connect(far)
            os.sendfile(client.fileno(), file.fileno(), 0, 4)
            wait(queue)
            queue.drain()
            words[:4] = b"evil"
            queue.release(flows[0], Action.ALLOW)
            assert sink.recv(10) == b"good"


def test_what_interrupts_us_denies_the_packet_in_hand(street: Street) -> None:
    def judge(_flow: Flow, _packet: bytes) -> Answer:
        raise KeyboardInterrupt

    with street.inside.namespace.entered():
        queue = Queue(QUEUE, judge, unexpected, unexpected)
    with queue, in_force(street.inside, PLAN) as table, street.inside.udp(4) as client:
        client.sendto(b"x", (STRANGER[4], ALLOWED))
        wait(queue)
        with pytest.raises(KeyboardInterrupt):
            queue.drain()
        assert table.counters()["refused"] == 1


def test_the_report_gets_the_packet(street: Street) -> None:
    reported: list[tuple[str, bytes]] = []

    def malformed(error: PacketError, data: bytes) -> None:
        reported.append((str(error), data[-8:]))

    with street.inside.namespace.entered():
        queue = Queue(QUEUE, allow, unexpected, malformed)
    with queue, in_force(street.inside, PLAN), street.inside.socket(4, RAW, ICMP) as client:
        client.sendto(bytes([13, 0, 242, 255]) + bytes(8) + b"the last", (STRANGER[4], 0))
        wait(queue)
        queue.drain()
    assert reported == [("ICMP type 13 code 0", b"the last")]


def test_draining_an_empty_queue_does_not_block(street: Street) -> None:
    with street.inside.namespace.entered():
        queue = Queue(QUEUE, allow, unexpected, unexpected)
    with queue:
        queue.drain()
        assert not select.select([queue], [], [], 0)[0]


def test_a_queue_that_is_taken_is_an_error(street: Street) -> None:
    with street.inside.namespace.entered():
        with Queue(QUEUE, allow, unexpected, unexpected) as queue:
            with pytest.raises(OSError, match="queue"):
                Queue(QUEUE, allow, unexpected, unexpected)
            queue.close()
        Queue(QUEUE, allow, unexpected, unexpected).close()  # free again
