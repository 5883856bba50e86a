"""What a client's first octets say of the host it wants: TLS, HTTP, and what is neither."""

from __future__ import annotations

from contextlib import suppress
from email import message_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.firstwords import Words, WordsError, read_words
from policy.values import Seen, Spoken
from tests.firewall.hellos import extension, hello, names, said

NAME = "a.example"
TLS, HTTP, OTHER = Spoken.TLS, Spoken.HTTP, Spoken.OTHER
HELLO = said(NAME)
LONG = hello(names(NAME.encode()) + extension(21, bytes(900)))  # the name stands far from the end


def request(*fields: str, line: str = "GET / HTTP/1.1") -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


WHOLE = {
    "tls": (HELLO, TLS, NAME),
    "tls without a name": (said(None), TLS, None),
    "tls in the form of ssl 2": (b"\x80\x2e\1\3\1" + bytes(43), TLS, None),
    "http": (request(f"Host: {NAME}"), HTTP, NAME),
    "its port": (request(f"Host: {NAME}:8080"), HTTP, NAME),
    "among others": (request("A: b", f"hOST:\t{NAME} ", "C:"), HTTP, NAME),
    "capitals, final dot": (request("Host: A.Example."), HTTP, NAME),
    "http 1.0 without a host": (request(line="GET / HTTP/1.0"), HTTP, None),
    "an empty host": (request("Host:"), HTTP, None),
    "a body behind it": (request(f"Host: {NAME}") + b"Host: b.example\r\n\r\n", HTTP, NAME),
    "absolute": (request(f"Host: {NAME}", line=f"GET http://{NAME}/x?y HTTP/1.1"), HTTP, NAME),
    "absolute without a host": (request(line=f"GET http://{NAME}:8080 HTTP/1.0"), HTTP, NAME),
    "connect": (request("Host: b.example:443", line="CONNECT b.example:443 HTTP/1.1"), HTTP, None),
    "http 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP, None),
    "options *": (request(f"Host: {NAME}", line="OPTIONS * HTTP/1.1"), HTTP, NAME),
    "a method of its own": (request(f"Host: {NAME}", line="M-SEARCH-x / HTTP/1.1"), HTTP, NAME),
    "empty lines before": (b"\r\n\n" + request(f"Host: {NAME}"), HTTP, NAME),
    "http 0.9": (b"GET /x\r\n", HTTP, None),
    "ssh": (b"SSH-2.0-OpenSSH_9.2 Debian\r\n", OTHER, None),
    "smtp": (b"EHLO a.example\r\n", OTHER, None),
    "binary": (b"\0\0\0\x08\x04\xd2\x16\x2f", OTHER, None),
    "redis": (b"*1\r\n$4\r\nPING\r\n", OTHER, None),
    "amqp": (b"AMQP\0\0\x09\1", OTHER, None),
    "binary, and high": (b"\x80\2\1\0", OTHER, None),
    "binary, and of a small length": (b"\x15\0\0\0", OTHER, None),
    "a line that no server would take": (b"x" * 8192, OTHER, None),
    "a long line of words": (b"PUBLISH / " + b"x" * 8192 + b" y", OTHER, None),
    "a long request": (request(f"Host: {NAME}", line=f"FOO /{'x' * 9000} HTTP/1.1"), HTTP, NAME),
}


@pytest.mark.parametrize(("data", "protocol", "name"), WHOLE.values(), ids=WHOLE)
def test_they_are_understood(data: bytes, protocol: Spoken, name: str | None) -> None:
    assert read_words(data, 8080) == Words(Seen(protocol, name), whole=True)


# What is said so far, and whether it waits in the kernel for the rest.
PARTS = {
    "nothing": (b"", OTHER, None, True),
    "a record's beginning": (HELLO[:3], TLS, None, True),
    "a hello before its name": (LONG[:60], TLS, None, True),
    "a hello behind its name": (LONG[:-9], TLS, NAME, True),
    "a method's beginning": (b"PO", OTHER, None, True),
    "a method": (b"DELETE /x", OTHER, None, True),
    "a request line": (b"GET / HTTP/1.1\r\nHos", HTTP, None, True),
    "a host, and more to come": (f"GET / HTTP/1.1\r\nHost: {NAME}\r\nA".encode(), HTTP, NAME, True),
    "half a host": (f"GET / HTTP/1.1\r\nHost: {NAME}".encode(), HTTP, None, True),
    "a record of any kind": (b"\x15", OTHER, None, True),
    "a hello of ssl 2": (b"\x80\x2e\1", TLS, None, True),
    "a line of text": (b"hello", OTHER, None, False),
    "a long request's line": (b"FOO /" + b"x" * 9000, OTHER, None, False),
    "all but its end": (b"FOO http://a.example/" + b"x" * 9000 + b" HTTP/1.1\r", OTHER, None, False),
    "a word, and something binary": (b"QUUX /\1", OTHER, None, False),
}


@pytest.mark.parametrize(("data", "protocol", "name", "held"), PARTS.values(), ids=PARTS)
def test_more_may_come(data: bytes, protocol: Spoken, name: str | None, held: bool) -> None:
    assert read_words(data, 8080) == Words(Seen(protocol, name), whole=False, held=held)


@pytest.mark.parametrize("data", [b"hello", b"QUUX / ", b"\1"])
@pytest.mark.parametrize("port", [80, 443])
def test_where_hosts_are_named_other_words_are_understood_at_once(data: bytes, port: int) -> None:
    assert read_words(data, port) == Words(Seen(OTHER, None), whole=True)


REFUSED = {
    "two hosts": request(f"Host: {NAME}", "Host: b.example"),
    "the same twice": request(f"Host: {NAME}", f"Host: {NAME}"),
    "another in the line": request(f"Host: {NAME}", line="GET http://b.example/ HTTP/1.1"),
    "another port": request(f"Host: {NAME}:81"),
    "user information": request(f"Host: b.example@{NAME}"),
    "an IPv6 address": request("Host: [2001:db8::1]"),
    "not ASCII": request("Host: \xe4.example"),
    "two in one": request(f"Host: {NAME} b.example"),
    "a folded line": request("Host: a", " .example"),
    "space before the colon": request(f"Host : {NAME}"),
    "space before the name": request(f" Host: {NAME}"),
    "no colon": request("Host"),
    "bare line feeds": request(f"Host: {NAME}").replace(b"\r", b""),
    "a bare carriage return": request(f"A: b\rHost: {NAME}"),
    "a nul": request(f"Host: {NAME}\0"),
    "two spaces": request(f"Host: {NAME}", line="GET  / HTTP/1.1"),
    "a tab": request(f"Host: {NAME}", line="GET\t/ HTTP/1.1"),
    "http 1.2": request(f"Host: {NAME}", line="GET / HTTP/1.2"),
    "lower case": request(f"Host: {NAME}", line="get / http/1.1"),
    "space before the line": b" " + request(f"Host: {NAME}"),
    "a hello with two names": hello(names(NAME.encode(), b"b.example")),
    "a record of another version": b"\x16\4",
    "an alert before a hello": b"\x15\3\1\0\2\1\x70" + said(NAME),
    "a change of ciphers before a hello": b"\x14\3\3\0\1\1" + said(NAME),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_two_servers_could_understand_differently_is_refused(data: bytes) -> None:
    with pytest.raises(WordsError):
        read_words(data, 8080)


SAID = [*(data for data, *_ in WHOLE.values()), *REFUSED.values(), LONG]


@given(st.sampled_from(SAID), st.integers(0, 2000))
def test_a_name_once_said_is_never_another_later(data: bytes, cut: int) -> None:
    with suppress(WordsError):
        part = read_words(data[:cut], 8080)
        whole = read_words(data, 8080)
        assert part.seen.name in (None, whole.seen.name)
        assert not part.whole or part.seen == whole.seen


@given(st.sampled_from(SAID), st.data())
def test_any_octets_are_words_or_refused(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with suppress(WordsError):
        assert isinstance(read_words(bytes(damaged), draw.draw(st.sampled_from([80, 8080]))), Words)


@given(st.binary(max_size=300), st.sampled_from([b"", b"GET / HTTP/1.1\r\nHost: ", b"\x16\3\1"]))
def test_any_octets_at_all(data: bytes, start: bytes) -> None:
    with suppress(WordsError):
        read_words(start + data, 80)


fields = st.lists(
    st.sampled_from(["Host: a.example", "host:b.example", "A: b", "Host:", "X-Host: c.example"]), max_size=4
)


@given(fields)
def test_another_reader_of_headers_finds_the_same_host(given_fields: list[str]) -> None:
    data = request(*given_fields)
    others = message_from_bytes(data.partition(b"\r\n")[2]).get_all("host", [])
    try:
        name = read_words(data, 80).seen.name
    except WordsError:
        assert len(others) > 1
    else:
        assert [name] == ([others[0] or None] if others else [None])
