"""QUIC's Initial packets: a real client's, damaged ones, and what another library makes of the same."""

from __future__ import annotations

import struct
from contextlib import suppress
from itertools import permutations

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from hypothesis import given
from hypothesis import strategies as st

from firewall.clienthello import ClientHello, ClientHelloError
from firewall.datagrams import Datagrams
from firewall.opening import OpeningError
from firewall.packet import COPIED, parse_packet
from firewall.quic import VERSION_1, VERSION_2, Greetings, QuicError, looks_like_quic
from firewall.quickeys import client_keys
from policy.values import Action, Seen, Spoken
from tests.firewall.hellos import body, extension, message, names
from tests.firewall.judges import Names
from tests.firewall.packets import udp

NAME = "a.example"
VERSIONS = pytest.mark.parametrize("version", [VERSION_1, VERSION_2], ids=["v1", "v2"])
ID = bytes(range(8))
TYPES = {VERSION_1: (0xC0, 0xE0, 0xF0), VERSION_2: (0xD0, 0xF0, 0xC0)}  # Initial, Handshake, Retry


def said(name: str | None = NAME, version: int = VERSION_1) -> list[bytes]:
    """What another library's client sends first."""
    settings = QuicConfiguration(
        alpn_protocols=["h3"], server_name=name, original_version=version, supported_versions=[version]
    )
    client = QuicConnection(configuration=settings)
    client.connect(("192.0.2.1", 443), now=0.0)
    return [bytes(datagram) for datagram, _ in client.datagrams_to_send(now=0.0)]


def varint(number: int) -> bytes:
    return struct.pack("!I", number | 2 << 30)


def crypto(data: bytes, offset: int = 0) -> bytes:
    return b"\6" + varint(offset) + varint(len(data)) + data


def initial(
    frames: bytes, *, number: int = 0, version: int = VERSION_1, destination: bytes = ID, sealed: bytes = ID
) -> bytes:
    """One packet of our own making, sealed by the other library with the keys of connection id `sealed`."""
    frames += bytes(max(0, 1162 - len(frames)))  # PADDING, to make a datagram of 1200 octets
    start = (
        bytes([TYPES[version][0] | 1]) + struct.pack("!I", version) + bytes([len(destination)]) + destination + b"\0\0"
    )
    plain = start + varint(2 + len(frames) + 16) + struct.pack("!H", number)
    pair = CryptoPair()
    pair.setup_initial(sealed, is_client=True, version=version)
    return bytes(pair.encrypt_packet(plain, frames, number))


HELLO = message(body(names(NAME.encode()) + extension(21, bytes(900))))
OTHERS = message(body(names(b"b.example")))


@VERSIONS
@pytest.mark.parametrize("name", [NAME, "www.example.com", None])
def test_a_real_client_s_name(version: int, name: str | None) -> None:
    assert [Greetings().add(datagram) for datagram in said(name, version)] == [[ClientHello(name)]]


@pytest.mark.parametrize(
    ("version", "key", "iv", "header"),
    [
        (VERSION_1, "1f369613dd76d5467730efcbe3b1a22d", "fa044b2f42a3fd3b46fb255c", "9f50449e04a0e810283a1e9933adedd2"),
        (VERSION_2, "8b1a0bc121284290a29e0971b5cd045d", "91f73e2351d8fa91660e909f", "45b95e15235d6f45a6b19cbcb0294ba9"),
    ],
    ids=["RFC 9001 appendix A.1", "RFC 9369 appendix A.1"],
)
def test_the_keys_are_the_standards(version: int, key: str, iv: str, header: str) -> None:
    made = client_keys(version, bytes.fromhex("8394c8f03e515708"))
    assert [part.hex() for part in (made.key, made.iv, made.header)] == [key, iv, header]


@VERSIONS
@given(order=st.permutations(range(4)), together=st.booleans(), numbers=st.integers(0, 250))
def test_pieces_in_any_order_and_in_any_packets(version: int, order: list[int], together: bool, numbers: int) -> None:
    size = len(HELLO) // 4 + 1
    frames = [crypto(HELLO[part * size :][:size], part * size) for part in order]
    packets = [b"".join(frames)] if together else frames
    greetings = Greetings()
    heard = [greetings.add(initial(frames, number=numbers + at, version=version)) for at, frames in enumerate(packets)]
    assert heard == [None] * (len(packets) - 1) + [[ClientHello(NAME)]]


def test_frames_that_initial_packets_may_have() -> None:
    ack = b"\2" + varint(3) + varint(1) + varint(1) + varint(0) + varint(0) + varint(0)
    frames = b"\1" + ack + b"\3" + ack[1:] + varint(1) * 3 + b"\0\0" + crypto(HELLO)
    assert Greetings().add(initial(frames)) == [ClientHello(NAME)]


def test_a_connection_goes_on_with_another_id_and_a_new_one_is_heard() -> None:
    greetings = Greetings()
    assert greetings.add(initial(crypto(HELLO))) == [ClientHello(NAME)]
    chosen = b"by the server"
    assert greetings.add(initial(b"\1", number=1, destination=chosen, sealed=ID)) == []
    assert greetings.add(initial(crypto(OTHERS), destination=chosen, sealed=chosen)) == [ClientHello("b.example")]


def test_a_connection_goes_on_in_another_version() -> None:
    greetings = Greetings()
    assert greetings.add(initial(crypto(HELLO))) == [ClientHello(NAME)]
    assert greetings.add(initial(b"\1", number=1, version=VERSION_2, destination=b"server", sealed=ID)) == []


def handshake(version: int = VERSION_1) -> bytes:
    return bytes([TYPES[version][1]]) + struct.pack("!I", version) + b"\0\0" + varint(20) + bytes(20)


def test_packets_that_share_a_datagram() -> None:
    assert Greetings().add(initial(crypto(HELLO)) + handshake() + b"\x40short") == [ClientHello(NAME)]
    both = initial(crypto(HELLO)) + initial(crypto(OTHERS), destination=b"12345678", sealed=b"12345678")
    assert Greetings().add(both) == [ClientHello(NAME), ClientHello("b.example")]


WHOLE = initial(crypto(HELLO))
REFUSED = {
    "an unknown version": WHOLE[:1] + b"\xff\0\0\x1d" + WHOLE[5:],
    "version negotiation": WHOLE[:1] + bytes(4) + WHOLE[5:],
    "a Retry": bytes([TYPES[VERSION_1][2]]) + WHOLE[1:],
    "a handshake with nothing before": handshake().ljust(1200, b"\0"),
    "other keys": initial(crypto(HELLO), sealed=b"87654321"),
    "a long connection id": WHOLE[:5] + bytes([21]) + WHOLE[6:],
    "cut short": WHOLE[:-1],
    "a short datagram": WHOLE[:1] + WHOLE[1:5] + b"\0\0\0" + varint(21) + bytes(21),
    "too short for a sample": (WHOLE[:5] + b"\0\0\0" + varint(4) + bytes(4)),
    "another frame": initial(b"\x08\0\0\0"),
    "a frame that reaches too far": initial(b"\6" + varint(0) + varint(5000)),
    "no hello in it": initial(crypto(b"\2\0\0\1x")),
    "two versions of an octet": initial(crypto(HELLO) + crypto(OTHERS)),
}


@pytest.mark.parametrize("datagram", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(datagram: bytes) -> None:
    with pytest.raises((QuicError, ClientHelloError, OpeningError)):
        Greetings().add(datagram)


def test_a_connection_does_not_begin_in_a_short_datagram() -> None:
    pair = CryptoPair()
    pair.setup_initial(ID, is_client=True, version=VERSION_1)
    plain = b"\xc1\0\0\0\1\x08" + ID + b"\0\0" + varint(2 + 40 + 16) + b"\0\0"
    with pytest.raises(QuicError, match="begins in"):
        Greetings().add(bytes(pair.encrypt_packet(plain, bytes(40), 0)))


@given(st.binary(max_size=100), st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=3))
def test_any_octets_are_hellos_or_refused(data: bytes, at: int, damage: bytes) -> None:
    for datagram in (data, b"\xc0\0\0\0\1" + data, WHOLE[:at] + damage + WHOLE[at + len(damage) :], WHOLE[:at] + data):
        with suppress(QuicError, ClientHelloError, OpeningError):
            Greetings().add(datagram)


def test_what_looks_like_quic() -> None:
    assert looks_like_quic(WHOLE, 4433)
    assert looks_like_quic(b"\x80", 443)
    assert not looks_like_quic(b"\x80\0\0\0\5", 4433)
    assert not looks_like_quic(b"\x40" + WHOLE[1:], 443)
    assert not looks_like_quic(b"", 443)


# Flows of datagrams


class Line:
    """One flow's datagrams."""

    def __init__(self, port: int = 443, flows: int = 4096) -> None:
        self.judge = Names()
        self.table = Datagrams(self.judge, flows)
        self.port, self.now = port, 0.0

    def send(self, data: bytes) -> Action | None:
        packet = udp(data, port=self.port)
        return self.table.answer(parse_packet(packet), packet, self.now)


def test_every_connection_of_a_flow_is_judged() -> None:
    line = Line()
    assert line.send(initial(crypto(HELLO))) is Action.ALLOW
    assert line.send(handshake()) is Action.ALLOW
    assert line.send(b"\x40 short header") is Action.ALLOW
    assert line.send(initial(crypto(OTHERS), destination=b"12345678", sealed=b"12345678")) is Action.DENY
    assert {seen.name for seen in line.judge.told} == {NAME, "b.example"}


@pytest.mark.parametrize("at", [0, 1])
def test_one_denied_name_denies_a_datagram(at: int) -> None:
    packets = [initial(crypto(HELLO))]
    packets.insert(at, initial(crypto(OTHERS), destination=b"12345678", sealed=b"12345678"))
    assert Line().send(b"".join(packets)) is Action.DENY


def test_a_hello_of_two_datagrams_waits_for_the_second() -> None:
    line = Line()
    assert line.send(initial(crypto(HELLO[:500]))) is None
    assert line.table.held.due() == pytest.approx(0.5)
    assert line.send(initial(crypto(HELLO[500:], 500), number=1)) is Action.ALLOW
    assert line.table.held.due() is None


# With the share of X25519MLKEM768, 1,216 octets, a hello doesn't fit one datagram.
LONG = message(body(names(NAME.encode()) + extension(51, bytes(1300)) + extension(16, bytes(400)) + extension(21, b"")))


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_a_long_hello_s_datagrams_come_in_any_order_and_again(order: tuple[int, ...]) -> None:
    size = len(LONG) // 3 + 1
    parts = [initial(crypto(LONG[at * size :][:size], at * size), number=at) for at in range(3)]
    line = Line()
    heard = [line.send(parts[at]) for at in (*order[:2], *order, order[0])]
    assert heard == [None] * 4 + [Action.ALLOW] * 2
    assert line.send(b"\x40 short header") is Action.ALLOW
    assert line.judge.problems == []


def test_early_data_waits_with_its_hello() -> None:
    """0-RTT (RFC 9001 section 4.6.1) that overtakes the rest of it."""
    line = Line()
    assert [line.send(initial(crypto(HELLO[:500]))), line.send(handshake())] == [None, None]
    assert line.send(initial(crypto(HELLO[500:], 500), number=1)) is Action.ALLOW
    assert line.send(handshake()) is Action.ALLOW


def test_the_first_of_two_is_denied_when_the_second_does_not_come() -> None:
    line = Line()
    assert line.send(initial(crypto(HELLO[:500]))) is None
    line.now = 0.6
    assert [answer.action for _, answer in line.table.overdue(line.now)] == [Action.DENY]
    assert line.judge.problems == ["its hello was not whole in time"]


def test_another_protocol_names_no_host() -> None:
    line = Line(port=123)
    assert line.send(b"\x23" + bytes(47)) is Action.ALLOW
    assert line.judge.told == [Seen(Spoken.OTHER, None)]


def another(frames: bytes, connection: int, number: int = 0) -> bytes:
    """Of another connection on the same flow."""
    chosen = bytes([connection]) * 8
    return initial(frames, number=number, destination=chosen, sealed=chosen)


def test_a_hello_may_come_again_but_not_another_in_its_place() -> None:
    """The first may never have arrived: its sender sets its hop limit."""
    line = Line()
    assert line.send(initial(crypto(HELLO))) is Action.ALLOW
    assert line.send(initial(crypto(HELLO[300:], 300), number=1)) is Action.ALLOW
    assert line.send(initial(crypto(OTHERS), number=2)) is Action.DENY
    assert line.judge.problems == ["two versions of the same octets"]


def test_of_a_long_hello_the_end_does_not_come_again() -> None:
    greetings = Greetings()
    long = message(body(names(NAME.encode()) + extension(21, bytes(5000))))
    parts = [crypto(long[at : at + 1024], at) for at in range(0, len(long), 1024)]
    heard = [greetings.add(initial(part, number=number)) for number, part in enumerate(parts)]
    assert heard[-2:] == [None, [ClientHello(NAME)]]
    assert greetings.add(initial(parts[3], number=10)) == []
    with pytest.raises(QuicError, match="two versions"):
        greetings.add(initial(parts[4], number=11))


FREED = {
    "another connection": another(crypto(HELLO), 1),
    "a short header": b"\x40 short header",
    "no Initial": handshake(),
}


@pytest.mark.parametrize("datagram", FREED.values(), ids=FREED)
def test_what_waits_goes_on_by_no_other_s_name(datagram: bytes) -> None:
    line = Line()
    assert line.send(another(crypto(HELLO), 2)) is Action.ALLOW
    assert line.send(initial(crypto(OTHERS[:50]))) is None
    assert line.send(datagram) is None
    assert line.send(initial(crypto(OTHERS[50:], 50), number=1)) is Action.DENY


def test_a_name_that_waits_with_another_s_beginning_is_judged() -> None:
    line = Line()
    assert line.send(initial(crypto(OTHERS)) + another(crypto(HELLO[:500]), 1)) is None
    assert line.send(another(crypto(HELLO[500:], 500), 1, number=1)) is Action.DENY


def test_a_connection_whose_hello_is_not_whole_is_not_forgotten_for_others() -> None:
    line = Line()
    assert line.send(initial(crypto(OTHERS[:50]))) is None
    heard = [line.send(another(crypto(HELLO), connection)) for connection in range(1, 5)]
    assert heard == [None, None, None, Action.DENY]


def test_only_so_many_datagrams_of_a_flow_wait() -> None:
    """Else one flow could fill the kernel's queue."""
    line = Line()
    part = initial(crypto(HELLO[:500]))
    assert [line.send(part) for _ in range(25)] == [None] * 24 + [Action.DENY]
    assert line.judge.problems == ["too many datagrams wait for the rest of a hello"]
    assert line.send(WHOLE) is Action.ALLOW
    assert [line.send(b"\x40 short header") for _ in range(30)] == [Action.ALLOW] * 30


def test_what_waits_for_a_flow_that_was_forgotten_is_denied() -> None:
    line = Line(flows=8)
    assert line.send(initial(crypto(OTHERS[:50]))) is None
    whole = another(crypto(HELLO), 1)
    for port in range(2000, 2008):
        packet = udp(whole, port=port)
        line.table.answer(parse_packet(packet), packet, line.now)
    assert line.send(whole) is Action.DENY


def test_all_of_a_datagram_is_looked_at_or_none_leaves() -> None:
    line = Line()
    packet = udp(initial(crypto(HELLO)) + bytes(COPIED))
    assert line.table.answer(parse_packet(packet[:COPIED]), packet[:COPIED], 0.0) is Action.DENY
    assert line.judge.problems == ["a datagram that is too long to be looked at"]


def test_only_so_many_flows_wait() -> None:
    table = Datagrams(judge := Names())
    part = initial(crypto(HELLO[:500]))
    for port in range(1000, 1129):
        packet = udp(part, port=port)
        answer = table.answer(parse_packet(packet), packet, 0.0)
        assert answer is (None if port < 1128 else Action.DENY)
    assert judge.problems == ["too many flows wait for the rest of their hellos"]
