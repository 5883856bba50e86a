"""HTTP/2 requests that no client of good will sends, in frames of our own making."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Self

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.events import DataReceived as DataReceivedEvent
from mitmproxy.proxy.events import Start
from mitmproxy.proxy.layers.http._base import ReceiveHttp

from policy import Action
from proxy import http2
from proxy.process import Patience, _options
from tests.proxy.bed import NGINX, Bed
from tests.proxy.test_proxy_http import talk
from tests.proxy.test_proxy_paths import ALLOWED, DENIED

pytestmark = pytest.mark.kernel("root", "netns", "nft", "nginx")

type Fields = list[tuple[bytes, bytes]]

USUAL: dict[bytes, bytes] = {b":method": b"GET", b":scheme": b"https", b":authority": b"api.example", b":path": b"/x"}


def fields(*more: tuple[bytes, bytes], **changed: bytes | None) -> Fields:
    """The usual request, some pseudo-fields changed (None: left out), more fields behind."""
    pseudo = {**USUAL, **{f":{name}".encode(): value for name, value in changed.items()}}
    return [*((name, value) for name, value in pseudo.items() if value is not None), *more]


class Http2:
    """A connection to nginx by way of the proxy, which checks nothing of what it sends."""

    def __init__(self, bed: Bed) -> None:
        self._socket = talk(bed, NGINX, "api.example", "h2")
        unchecked = H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        self._http = H2Connection(unchecked)
        self._http.initiate_connection()
        self._numbers = count(1, 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, sent: Fields) -> bytes:
        """The status and the body; `reset` or `gone` where there is none."""
        stream = next(self._numbers)
        self._http.send_headers(stream, sent, end_stream=True)
        self._socket.sendall(self._http.data_to_send())
        status, body = b"", b""
        for event in self._events():
            if isinstance(event, ResponseReceived):
                status = dict(event.headers)[b":status"]
            elif isinstance(event, DataReceived):
                body += event.data
            elif isinstance(event, StreamReset):
                return b"reset"
            elif isinstance(event, StreamEnded):
                return status + b" " + body.rstrip(b"\n")
        return b"gone"

    def _events(self) -> Iterator[object]:
        while data := self._socket.recv(65536):
            for event in self._http.receive_data(data):
                if isinstance(event, ConnectionTerminated):
                    return
                yield event
            self._socket.sendall(self._http.data_to_send())


def test_paths_are_understood_as_by_nginx_or_denied(bed: Bed) -> None:
    """The same table as for HTTP/1.1, but for what only that can say."""
    plain = [(target, path) for target, path in ALLOWED if target.startswith(b"/")]
    with Http2(bed) as client:
        seen = {target: client.ask(fields(path=target)) for target, _ in plain}
        assert seen == {target: b"200 api.example|" + path for target, path in plain}
        for target in DENIED:
            if target.startswith(b"/") and not target.startswith(b"/a\x00"):
                assert client.ask(fields(path=target))[:3] == b"403", target


@pytest.mark.parametrize(
    "sent",
    [
        fields(authority=b"other.example"),
        fields(authority=b"api.example:8443"),
        fields(authority=b"user@api.example"),
        fields(authority=b""),
        fields(authority=None),
        fields((b"host", b"other.example")),
        fields((b"host", b"api.example"), (b"host", b"api.example")),
        fields((b"host", b"other.example"), authority=None),
        fields(method=b"CONNECT"),
        fields((b":protocol", b"websocket"), method=b"CONNECT"),
        fields(method=b"GET /secret HTTP/1.1\r\nX:"),
        fields(method=b""),
        fields(path=b"/x HTTP/1.1\r\nHost: other.example\r\n\r\nGET /secret"),
        fields(path=b"/x?a HTTP/1.1\r\nX: y"),
        fields(path=b"/x?a b"),
        fields(path=b""),
        fields(path=b"*"),
        fields(path=b"https://other.example/x"),
        fields(path=None),
        fields((b"x", b"a\r\nhost: other.example")),
        fields((b"x", b"a\0b")),
        fields((b"x\r\nhost", b"other.example")),
        fields((b"X-Upper", b"a")),
        fields((b"x y", b"a")),
        fields((b"x-rewrite-url", b"/secret")),
        fields((b"connection", b"keep-alive")),
        fields((b"transfer-encoding", b"chunked")),
        fields((b"content-length", b"5")),
        fields((b"content-length", b"0"), (b"content-length", b"1")),
        fields((b":path", b"/secret")),
        fields((b"x", b"a"), (b":path", b"/secret")),
        fields((b":unknown", b"a")),
    ],
    ids=repr,
)
def test_what_could_be_read_differently_is_refused_and_recorded(bed: Bed, sent: Fields) -> None:
    since = len(bed.entries)
    with Http2(bed) as client:
        assert client.ask(sent)[:3] in {b"403", b"400", b"gon", b"res"}
    bed.wait_for_denial(since)
    assert [entry for entry in bed.entries[since:] if entry.decision.action is not Action.DENY] == []


def test_a_connection_goes_on_after_a_refusal(bed: Bed) -> None:
    with Http2(bed) as client:
        answers = [client.ask(fields(path=path))[:3] for path in (b"/x", b"/secret", b"/a/../b", b"/y")]
    assert answers == [b"200", b"403", b"403", b"200"]


def test_nothing_is_remembered_of_streams_that_have_ended() -> None:
    """R5: a connection may live for millions of them."""
    context = Context(Client(peername=("", 0), sockname=("", 0), state=ConnectionState.OPEN), _options(Patience()))
    server = http2.Server(context)
    peer = H2Connection(H2Configuration())
    peer.initiate_connection()
    sent = list(server.handle_event(Start()))
    for stream in range(1, 401, 2):
        peer.send_headers(stream, fields(method=b"POST"))
        peer.send_data(stream, b"x" * 100, end_stream=stream % 3 > 0)
        if stream % 3 == 0:
            peer.reset_stream(stream)
        sent += server.handle_event(DataReceivedEvent(context.client, peer.data_to_send()))
    assert sum(isinstance(command, ReceiveHttp) for command in sent) > 400
    assert not server.h2_conn.owed
