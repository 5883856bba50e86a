"""The name in a ClientHello: real ones, malformed ones, pieces of them, and what OpenSSL makes of the same octets."""

from __future__ import annotations

import ssl
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.proxy.layers.tls import parse_client_hello

from firewall.clienthello import ClientHello, ClientHelloError, read_client_hello
from firewall.opening import MOST, Opening, OpeningError
from tests.firewall.hellos import body, extension, hello, message, names, records, said, vector

NAME = "www.example.com"


REAL = said(NAME)


def heard(hello: bytes) -> list[str | None]:
    """The name that OpenSSL's server reads, in lower case, if it gets so far."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def take(_connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        names.append(name and name.lower())

    context.sni_callback = take
    come = ssl.MemoryBIO()
    come.write(hello)
    with suppress(ssl.SSLError):
        context.wrap_bio(come, ssl.MemoryBIO(), server_side=True).do_handshake()
    return names


READ = {
    "tls-1.3": (REAL, NAME),
    "tls-1.2": (said(NAME, newest=ssl.TLSVersion.TLSv1_2), NAME),
    "no-name": (said(None), None),
    "no-extensions": (hello(None), None),
    "empty-extensions": (hello(b""), None),
    "capitals": (hello(names(b"wWw.Example.COM")), NAME),
    "among-others": (hello(extension(10, b"x") + names(NAME.encode()) + extension(0xFE0D, b"ech")), NAME),
    "an-octet-a-record": (records(message(body(names(NAME.encode()))), 1), NAME),
    "early-data-behind": (REAL + b"\x17\3\3\0\1x", NAME),
    "something-odd-behind": (REAL + b"\0", NAME),
}


@pytest.mark.parametrize(("data", "name"), READ.values(), ids=READ)
def test_is_read(data: bytes, name: str | None) -> None:
    assert read_client_hello(data) == ClientHello(name)


def test_openssl_reads_the_same() -> None:
    assert [heard(data) for data in (REAL, said(None))] == [[NAME], [None]]


@pytest.mark.parametrize(("data", "name"), READ.values(), ids=READ)
def test_another_parser_of_the_same_octets_finds_the_same_name(data: bytes, name: str | None) -> None:
    """mitmproxy's, which is generated from a grammar."""
    theirs = parse_client_hello(data)
    assert theirs is not None
    assert (theirs.sni and theirs.sni.lower()) == name


REFUSED = {
    "http": (b"G", "not a TLS handshake"),
    "ssl-2": (b"\x80\x2e\1\3\1", "not a TLS handshake"),
    "alert": (b"\x15\3\1", "not a TLS handshake"),
    "version-4": (b"\x16\4", "TLS record of version 4"),
    "empty-record": (b"\x16\3\1\0\0", "TLS record of 0 octets"),
    "long-record": (b"\x16\3\1\x40\1", "TLS record of 16385 octets"),
    "server-hello": (b"\x16\3\1\0\4\2", "handshake message of type 2"),
    "long-hello": (b"\x16\3\1\0\4\1\xff\xff\xff", "ClientHello of 16777219 octets"),
    "two-messages-in-a-record": (records(message(body(None)) * 2), "more in the record than a ClientHello"),
    "cut-short": (records(message(body(b"")[:-1])), "a length reaches past the end"),
    "octets-behind-extensions": (hello(b"", b"x"), "octets behind the end"),
    "extension-too-long": (hello(extension(10, b"xx")[:-1]), "a length reaches past the end"),
    "name-twice": (hello(names(b"a.example") + names(b"b.example")), "extension 0 twice"),
    "another-twice": (hello(extension(43, b"") * 2 + names(b"a.example")), "extension 43 twice"),
    "two-names": (hello(names(b"a.example", b"b.example")), "octets behind the end"),
    "name-of-another-type": (hello(names(b"a.example", kind=1)), "not the name of a host"),
    "no-name-in-it": (hello(extension(0, vector(2, b""))), "a length reaches past the end"),
    "nothing-in-it": (hello(extension(0, b"")), "a length reaches past the end"),
    "behind-the-names": (hello(extension(0, vector(2, b"\0" + vector(2, b"a.example")) + b"x")), "octets behind"),
    "empty-name": (hello(names(b"")), "not the name of a host"),
    "final-dot": (hello(names(b"a.example.")), "not the name of a host"),
    "nul": (hello(names(b"a.example\0.evil.example")), "not the name of a host"),
    "not-ascii": (hello(names("ä.example".encode())), "not the name of a host"),
    "space": (hello(names(b"a.example b.example")), "not the name of a host"),
}


@pytest.mark.parametrize(("data", "problem"), REFUSED.values(), ids=REFUSED)
def test_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ClientHelloError, match=problem):
        read_client_hello(data)


def test_records_of_another_kind_do_not_come_in_between() -> None:
    """RFC 8446 section 5.1."""
    whole = message(body(names(NAME.encode())))
    with pytest.raises(ClientHelloError, match="not a TLS handshake"):
        read_client_hello(records(whole[:20]) + b"\x14\3\3\0\1\1" + records(whole[20:]))


@pytest.mark.parametrize("data", [data for data, _ in READ.values()], ids=READ)
def test_the_beginning_of_one_waits_for_more(data: bytes) -> None:
    whole = next(size for size in range(len(data) + 1) if read_client_hello(data[:size]) is not None)
    assert whole >= len(data) - 6  # what is behind it plays no part
    assert read_client_hello(data[:whole]) == read_client_hello(data)


# Properties


@given(st.binary(max_size=200))
def test_any_octets_are_a_hello_or_its_beginning_or_an_error(data: bytes) -> None:
    for start in (b"", b"\x16\3\1", b"\x16\3\1" + struct.pack("!H", len(data) + 4) + b"\1" + len(data).to_bytes(3)):
        with suppress(ClientHelloError):
            assert isinstance(read_client_hello(start + data), ClientHello | None)


@given(st.data())
def test_a_hello_with_wrong_octets_is_read_as_openssl_reads_it_or_not_at_all(data: st.DataObject) -> None:
    raw = bytearray(REAL)
    near_the_name = st.integers(REAL.index(NAME.encode()) - 12, REAL.index(NAME.encode()) + len(NAME))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(near_the_name, st.integers(0, len(raw) - 1)))
        raw[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from([0, raw[at] + 1 & 255, raw[at] - 1 & 255])))
    try:
        read = read_client_hello(bytes(raw))
    except ClientHelloError:
        return
    if read is not None:
        assert heard(bytes(raw)) in ([], [read.name])
        with suppress(ValueError):  # it reads less than OpenSSL does
            theirs = parse_client_hello(bytes(raw))
            assert theirs is None or (theirs.sni and theirs.sni.lower()) in (read.name, None)


@given(st.integers(1, 600), st.permutations(range(6)), st.sampled_from([0, 2**32 - 1, 2**32 - 100]), st.data())
def test_pieces_in_any_order_and_repeated_make_the_same_hello(
    size: int, order: list[int], first: int, data: st.DataObject
) -> None:
    stream = records(message(body(names(NAME.encode()))), size)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), min_size=5, max_size=5)))
    pieces = [(start, stream[start:end]) for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    again = data.draw(st.tuples(st.integers(0, len(stream)), st.integers(0, len(stream))).map(sorted))
    pieces = [pieces[index] for index in order]
    pieces.insert(data.draw(st.integers(0, 6)), (again[0], stream[again[0] : again[1]]))
    opening = Opening(first)
    together = [opening.add((first + start) % 2**32, piece) for start, piece in pieces]
    assert together[-1] == stream
    assert all(stream.startswith(beginning) for beginning in together)
    assert read_client_hello(together[-1]) == ClientHello(NAME)


# Openings


def test_a_second_version_of_an_octet_is_refused() -> None:
    opening = Opening(100)
    assert opening.add(105, b"fghij") == b""
    with pytest.raises(OpeningError, match="two versions"):
        opening.add(100, b"abcdefgX")
    assert opening.add(100, b"abcdefg") == b"abcdefghij"
    with pytest.raises(OpeningError, match="two versions"):
        opening.add(100, b"X")


def test_a_keep_alive_comes_from_before_the_first_octet() -> None:
    opening = Opening(0)
    assert opening.add(2**32 - 1, b"") == b""
    assert opening.add(2**32 - 1, b"?abc") == b"abc"


def test_an_opening_is_bounded() -> None:
    opening = Opening(7)
    assert len(opening.add(7, bytes(MOST))) == MOST
    for sequence, data in ((7 + MOST, b"x"), (8 + MOST, b""), (7, bytes(MOST + 1)), (7 + 2**31 - 1, b"x")):
        with pytest.raises(OpeningError, match="more than"):
            opening.add(sequence, data)
