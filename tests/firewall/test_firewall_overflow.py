"""The queue's status file: format, and what the kernel writes there."""

from __future__ import annotations

import socket

import pytest

from firewall.answers import Answer
from firewall.overflow import Load, LoadFile, parse_status
from firewall.queue import Queue
from policy.values import Action
from tests.firewall.street import ALLOWED, KERNEL, PLAN, QUEUE, STRANGER, Street, in_force

SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # <asm-generic/socket.h>

STATUS = """\
    7  16908     3 2   512     0     0       12  1
   53 -23190     0 2   512    40     2      999  1
"""


@pytest.mark.parametrize(
    ("number", "load"),
    [(7, Load(3, 0, 0)), (53, Load(0, 40, 2)), (5, Load())],
    ids=["waiting", "lost", "unbound"],
)
def test_the_status_of_a_queue(number: int, load: Load) -> None:
    assert parse_status(STATUS, number) == load


def test_what_is_lost() -> None:
    assert parse_status(STATUS, 53).lost == 42


@pytest.mark.parametrize("text", ["7 1 2\n", "a b c d e f g h i\n", "\n"], ids=["short", "words", "empty line"])
def test_another_format_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_status(text, 7)


@KERNEL
def test_the_kernel_s_own_status_from_elsewhere(street: Street) -> None:
    """The file shows the namespace that it was opened in, wherever it is read; so does the queue's socket."""

    def unexpected(error: BaseException, _: bytes) -> None:
        raise error

    with street.inside.namespace.entered():
        queue, file = Queue(QUEUE, _allow, unexpected, unexpected), LoadFile(QUEUE)
    with queue, file, in_force(street.inside, PLAN), street.inside.udp(4) as client:
        for _ in range(3):
            client.sendto(b"x", (STRANGER[4], ALLOWED))
        assert file.read() == Load(waiting=3)
        queue.drain()
        assert file.read() == Load()


def _allow(*_: object) -> Answer:
    return Answer(Action.ALLOW)


@KERNEL
def test_a_full_queue_drops_and_counts(street: Street) -> None:
    with street.inside.namespace.entered():
        queue, file = Queue(QUEUE, _allow, _ignore, _ignore), LoadFile(QUEUE)
    with (
        street.outside.receive(4, STRANGER[4], ALLOWED) as sink,
        queue,
        file,
        in_force(street.inside, PLAN),
        street.inside.udp(4) as client,
    ):
        sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        client.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 64 << 20)  # what is queued counts there
        for _ in range(5000):
            client.sendto(b"x", (STRANGER[4], ALLOWED))
        load = file.read()
        assert (load.waiting, load.lost) == (4096, 904)
        rounds = 0
        while file.read().waiting:
            queue.drain()
            rounds += 1
        assert rounds == 4096 // 64  # others get their turn in between
        sink.settimeout(0)
        assert sum(1 for _ in iter(lambda: _received(sink), b"")) == 4096


def _ignore(_error: BaseException, _data: bytes) -> None:
    pytest.fail("nothing is wrong with these packets")


def _received(sink: socket.socket) -> bytes:
    try:
        return sink.recv(10)
    except BlockingIOError:
        return b""
