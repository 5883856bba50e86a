"""Hosts told apart on one address: what a client says first decides, over TLS, HTTP and QUIC."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import PYTHON, Inside, Laptop
from tests.firewall.hellos import extension, hello, names, said

pytestmark = pytest.mark.kernel

POLICY = f"""
*.{atlas.WILDCARD_ZONE}:443|80|22|8443
*.{atlas.WILDCARD_ZONE}:443|123/udp
{atlas.ALLOWED_NAME}:443|80
{atlas.ALLOWED_NAME}:{atlas.DAYTIME_PORT}|{atlas.ECHO_PORT}
{atlas.EVIL_SHARED_NAME}:443 exe=/nowhere/at/all
lax.{atlas.WILDCARD_ZONE}:8443 no-sni
"""
# Pieces of one stream, each sent by itself when the one before it is out; then what is answered, or the error.
SPEAK = """
import socket, sys, time
_, kind, address, port, pause, *pieces = sys.argv
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM if kind != "udp" else socket.SOCK_DGRAM) as sock:
    sock.settimeout(2)
    if kind == "nodelay":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.connect((address, int(port)))
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(float(pause))
            sock.send(bytes.fromhex(piece))
        print(sock.recv(100).hex())
    except OSError as error:
        print(type(error).__name__)
"""
HERE = atlas.SHARED_NAME
V4_AND_V6 = pytest.mark.parametrize("address", atlas.SHARED.addresses, ids=["v4", "v6"])
RESET = {"ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError"}


@pytest.fixture(scope="module")
def laptop(world: Playground, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    return Laptop(world, tmp_path_factory.mktemp("peek"))


@pytest.fixture(scope="module")
def journal(laptop: Laptop) -> Path:
    return laptop.directory / "journal"


@pytest.fixture(scope="module")
def inside(laptop: Laptop, journal: Path) -> Iterator[Inside]:
    with laptop.agent(POLICY, "--journal", str(journal)) as inside:
        inside.resolve(HERE)
        inside.resolve(f"lax.{atlas.WILDCARD_ZONE}")
        inside.resolve(atlas.ALLOWED_NAME)
        yield inside


def speak(inside: Inside, address: str, *pieces: bytes, port: int = 443, kind: str = "tcp", pause: float = 0.0) -> str:
    arguments = [kind, address, str(port), str(pause), *(piece.hex() for piece in pieces)]
    done = inside.run(PYTHON, "-c", SPEAK, *arguments)
    assert done["status"] == 0, done["err"]
    return str(done["out"].strip())


def answered(reply: str) -> bool:
    """By TLS: a ServerHello or an alert of the server's own."""
    return reply[:2] in {"16", "15"}


@V4_AND_V6
def test_the_name_that_was_resolved_to_it_opens_an_address(inside: Inside, address: str) -> None:
    assert answered(speak(inside, address, said(HERE)))


NO_GOOD = {
    "another's name": said(atlas.EVIL_SHARED_NAME),
    "a name that nobody allows": said("www.example.com"),
    "an allowed name of another address": said(atlas.ALLOWED_NAME),
    "no name": said(None),
    "an outer name, with ECH": hello(names(atlas.EVIL_SHARED_NAME.encode()) + extension(0xFE0D, bytes(40))),
    "two names": hello(names(HERE.encode()) + names(atlas.EVIL_SHARED_NAME.encode())),
    "no TLS": b"secret words\n",
    "HTTP for another": f"GET / HTTP/1.1\r\nHost: {atlas.EVIL_SHARED_NAME}\r\n\r\n".encode(),
}


@V4_AND_V6
@pytest.mark.parametrize("words", NO_GOOD.values(), ids=NO_GOOD)
def test_other_words_are_reset_and_do_not_arrive(world: Playground, inside: Inside, address: str, words: bytes) -> None:
    world.forget()
    assert speak(inside, address, words) in RESET
    assert not [arrival for arrival in world.arrivals() if arrival.destination == (address, 443) and arrival.payload]


@V4_AND_V6
@pytest.mark.parametrize(("kind", "pause"), [("nodelay", 0.0), ("tcp", 0.15)], ids=["at-once", "slowly"])
def test_a_hello_in_pieces(inside: Inside, address: str, kind: str, pause: float) -> None:
    """Nagle's algorithm holds the second piece back until the first is acknowledged."""
    good, bad = said(HERE), said(atlas.EVIL_SHARED_NAME)
    for at in (1, len(good) - 7):
        assert answered(speak(inside, address, good[:at], good[at:], kind=kind, pause=pause))
    assert speak(inside, address, bad[:9], bad[9:100], bad[100:], kind=kind, pause=pause) in RESET


def test_a_denied_name_does_not_go_out_with_the_rest_still_to_come(world: Playground, inside: Inside) -> None:
    token = secrets.token_hex(8)
    words = hello(names(atlas.EVIL_SHARED_NAME.encode()) + extension(21, token.encode() * 40))
    world.forget()
    assert speak(inside, atlas.SHARED.v4, words[:-9], words[-9:], kind="nodelay", pause=0.3) in RESET
    assert not [arrival for arrival in world.arrivals() if token.encode() in arrival.payload]


# Sends a file that it changes behind the first packet, which dies on the way (ip(7), IP_TTL).
CHANGED = """
import mmap, os, socket, sys, time
_, address, first, second = sys.argv
first, second, v6 = bytes.fromhex(first), bytes.fromhex(second), ":" in address
hops = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) if v6 else (socket.IPPROTO_IP, socket.IP_TTL)
file = os.memfd_create("words")
os.ftruncate(file, mmap.PAGESIZE)
with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET) as sock, mmap.mmap(file, mmap.PAGESIZE) as words:
    sock.settimeout(5)
    sock.connect((address, 443))
    sock.setsockopt(*hops, 1)
    words[:len(first)] = first
    os.sendfile(sock.fileno(), file, 0, len(first))
    time.sleep(0.05)  # less than a packet's first repetition takes, which nothing tells of
    words[:len(second)] = second
    sock.setsockopt(*hops, 64)
    try:
        print(sock.recv(100).hex())
    except OSError as error:
        print(type(error).__name__)
"""


@V4_AND_V6
def test_what_was_judged_does_not_come_again_as_something_else(world: Playground, inside: Inside, address: str) -> None:
    here, there = said(HERE), "x" * len(HERE)
    world.forget()
    for words, good in ((here, True), (here.replace(HERE.encode(), there.encode()), False)):
        done = inside.run(PYTHON, "-c", CHANGED, address, here.hex(), words.hex())
        assert answered(done["out"]) if good else done["out"].strip() in RESET, done
    arrived = b"".join(arrival.payload for arrival in world.arrivals())
    assert (HERE.encode() in arrived, there.encode() in arrived) == (True, False)


HTTP = {
    "its host": (HERE, True),
    "its host and port": (f"{HERE}:80", True),
    "another host": (atlas.EVIL_SHARED_NAME, False),
    "an allowed host of another address": (atlas.ALLOWED_NAME, False),
    "the address": (atlas.SHARED.v4, False),
    "no host": (None, False),
}


@V4_AND_V6
@pytest.mark.parametrize(("host", "good"), HTTP.values(), ids=HTTP)
def test_plain_http_asks_for_its_host(inside: Inside, address: str, host: str | None, good: bool) -> None:
    fields = "" if host is None else f"Host: {host}\r\n"
    pieces = [f"GET / HTTP/1.1\r\n{fields}".encode(), b"\r\n"]
    for kind, pause in (("nodelay", 0.0), ("tcp", 0.15)):
        reply = speak(inside, address, *pieces, port=80, kind=kind, pause=pause)
        assert reply.startswith(b"HTTP/1.1 200".hex()) if good else reply in RESET


@pytest.mark.parametrize("address", atlas.ALLOWED.addresses, ids=["v4", "v6"])
def test_a_server_that_speaks_first_and_a_protocol_without_names(inside: Inside, address: str) -> None:
    assert speak(inside, address, port=atlas.DAYTIME_PORT) == b"ok".hex()
    assert speak(inside, address, b"hello", port=atlas.ECHO_PORT) == b"hello".hex()
    began = inside.tcp(address, atlas.ECHO_PORT, "more", keep=address)
    assert (began["reply"], began["ms"] < 100) == ("more", True)
    assert inside.again(address, "SSH-2.0-x\r\n") == "SSH-2.0-x\r\n"


def test_no_sni_is_a_rule_s_to_allow(world: Playground, inside: Inside) -> None:
    world.forget()
    for words in (said(None), b"binary\0words"):
        speak(inside, atlas.SHARED.v4, words, port=8443)
        (arrival,) = [each for each in world.arrivals(within=2) if each.destination == (atlas.SHARED.v4, 8443)]
        assert arrival.payload == words
        world.forget()
    assert speak(inside, atlas.SHARED.v4, said(atlas.EVIL_SHARED_NAME), port=8443) in RESET


def initials(name: str) -> list[bytes]:
    """What a QUIC client sends first."""
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"], server_name=name))
    client.connect(("192.0.2.1", 443), now=0.0)
    return [bytes(datagram) for datagram, _ in client.datagrams_to_send(now=0.0)]


QUIC = {
    "its host": (initials(HERE), True),
    "another host": (initials(atlas.EVIL_SHARED_NAME), False),
    "an allowed host of another address": (initials(atlas.ALLOWED_NAME), False),
    "one more, for another host": (initials(HERE) + initials(atlas.EVIL_SHARED_NAME), None),
    "not QUIC": ([b"\x40secret"], False),
    "of an unknown version": ([b"\xc0\xff\0\0\x1d" + bytes(1195)], False),
}


@V4_AND_V6
@pytest.mark.parametrize(("words", "good"), QUIC.values(), ids=QUIC)
def test_quic(world: Playground, inside: Inside, address: str, words: list[bytes], good: bool | None) -> None:
    world.forget()
    reply = speak(inside, address, *words, kind="udp", pause=0.05)
    arrived = [
        each.payload for each in world.arrivals(within=0 if good is False else 2) if each.destination == (address, 443)
    ]
    assert arrived == (words[:1] if good is None else words if good else [])
    if good is not None:  # of both, a refusal may come before the answer
        assert (reply == b"ok".hex()) is good


# Two datagrams in one send (udp(7), UDP_SEGMENT), behind one that was answered.
TOGETHER = """
import socket, sys
_, address, *words = sys.argv
first, second, third = map(bytes.fromhex, words)
with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(2)
    sock.connect((address, 443))
    sock.send(first)
    print(sock.recv(100).decode())
    sock.setsockopt(socket.IPPROTO_UDP, 103, len(second))
    sock.send(second + third)
    print(sock.recv(100).decode())
"""


@V4_AND_V6
def test_what_is_sent_together_is_judged_one_by_one(world: Playground, inside: Inside, address: str) -> None:
    (here, *_), (there, *_) = initials(HERE), initials(atlas.EVIL_SHARED_NAME)
    token = secrets.token_hex(8)
    short = b"\x40" + bytes.fromhex(token) + bytes(len(there) - 9)
    world.forget()
    done = inside.run(PYTHON, "-c", TOGETHER, address, here.hex(), short.hex(), there.hex())
    assert done["out"].startswith("ok"), done
    assert world.arrivals(token, within=2)
    assert there[:500] not in b"".join(arrival.payload for arrival in world.arrivals())


def test_the_journal_says_what_was_seen(inside: Inside, journal: Path) -> None:
    """After all the others: the reasons, by what the client said."""
    inside.run("true")
    records: list[dict[str, Any]] = [json.loads(line) for line in journal.read_text().splitlines()]
    told = {
        (record["seen"]["protocol"], record["seen"]["name"], record["decision"], record["reason"])
        for record in records
        if record.get("seen")
    }
    assert told >= {
        ("tls", HERE, "allow", "allow-rule"),
        ("tls", atlas.EVIL_SHARED_NAME, "deny", "owner"),
        ("tls", "www.example.com", "deny", "no-rule"),
        ("tls", atlas.ALLOWED_NAME, "deny", "name"),
        ("tls", None, "deny", "no-name"),
        ("http", HERE, "allow", "allow-rule"),
        ("http", None, "deny", "no-name"),
        ("quic", HERE, "allow", "allow-rule"),
        ("quic", atlas.ALLOWED_NAME, "deny", "port"),
        ("other", None, "deny", "no-name"),
    }
