"""What the supervisor and the engine say to each other arrives whole."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys

import pytest

from dnsfw.channel import Channel, Finished, Listening, Ready, channel_pair


def test_the_longest_summary_arrives_whole() -> None:
    """Twenty denials of programs whose names are as long, and as much in need of escapes, as the kernel takes."""
    said = Finished(20, "✗ " + "\\x01" * 30_000)
    one, other = channel_pair()
    one.send(said)
    assert other.receive(1) == said
    one.close()
    other.close()


def test_descriptors_arrive_and_those_that_nobody_takes_are_closed() -> None:
    """Or an engine could use up the supervisor's."""
    one, other = channel_pair()
    reading, writing = os.pipe()
    one.send(Listening(), [writing])
    os.close(writing)
    assert other.receive(1) == Listening()
    (taken,) = other.descriptors()
    assert other.descriptors() == []
    one.send(Listening(), [taken])
    os.close(taken)
    other.receive(1)
    assert not select.select([reading], [], [], 0)[0]  # it is held
    one.send(Ready())
    other.receive(1)
    assert os.read(reading, 1) == b""  # by nobody any more
    os.close(reading)
    one.close()
    other.close()


@pytest.mark.parametrize("nonsense", [b"x", b"{}", b'{"type":"Sesame"}', b"\xff" * 1000], ids=repr)
def test_who_talks_nonsense_has_hung_up(nonsense: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(ours)
    theirs.send(nonsense)
    assert channel.receive(1) is None
    channel.close()
    theirs.close()


ANOTHER_THREAD = """
import os, threading
from dnsfw.channel import Ready, channel_pair
began, over = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: (began.set(), over.wait()))
thread.start()
began.wait()
one, other = channel_pair()
one.signal_when_readable()
other.send(Ready())
over.set()
thread.join()
print("lives")
"""


def test_a_thread_that_does_not_block_the_signal_is_not_the_process_s_end() -> None:
    done = subprocess.run([sys.executable, "-c", ANOTHER_THREAD], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "lives\n"), done.stderr
