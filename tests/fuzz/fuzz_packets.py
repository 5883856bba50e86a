"""A fuzz target for foreign bytes: packets, and what their clients say first.

`python tests/fuzz/fuzz_packets.py [-max_total_time=60]` drives it by coverage (tests/fuzz/driver.py); pytest feeds
it the corpus and hypothesis' bytes. The first octet says what the others are.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from firewall.clienthello import ClientHelloError, name_so_far, read_client_hello
from firewall.firstwords import WordsError, read_words
from firewall.opening import OpeningError
from firewall.packet import PacketError, parse_packet
from firewall.peeks import Peeks
from firewall.quic import Greetings, QuicError
from firewall.segment import read_segment, reset, without_data
from policy.values import Proto
from tests.firewall.judges import Names
from tests.fuzz.driver import drive

CORPUS = Path(__file__).parent / "packets"


def one(data: bytes) -> None:
    """Whatever breaks a promise raises."""
    readers = (_packet, _words, _hello, _datagram)
    if data:
        readers[data[0] % len(readers)](data[1:])


def _packet(data: bytes) -> None:
    try:
        flow = parse_packet(data)
    except PacketError:
        return
    peeks = Peeks(Names())
    for now in (0.0, 0.01, 700.0):
        answer = peeks.answer(flow, data, now)
        made = [answer.instead, answer.reset, *(late.reset for _, late in peeks.overdue(now))]
        assert all(parse_packet(one) == flow for one in made if one is not None)
    if flow.proto == Proto.TCP:
        assert read_segment(without_data(data)).data == b""
        assert parse_packet(reset(data, 2**32)) == flow


def _words(data: bytes) -> None:
    for port in (80, 8080):
        with suppress(WordsError):
            whole = read_words(data, port)
            half = read_words(data[: len(data) // 2], port)
            assert half.seen.name in (None, whole.seen.name)


def _hello(data: bytes) -> None:
    with suppress(ClientHelloError):
        hello = read_client_hello(data)
        so_far = name_so_far(data)
        assert hello is None or hello.name == so_far


def _datagram(data: bytes) -> None:
    greetings = Greetings()
    with suppress(QuicError, ClientHelloError, OpeningError):
        greetings.add(data)
        greetings.add(data)


if __name__ == "__main__":
    drive(one, CORPUS)
