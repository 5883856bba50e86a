"""What one client is answered, while mitmproxy serves it.

Law: what mitmproxy asks, under the names it asks by (its "hooks"); every answer that lets something through is the
gate's. It leads to the one address that the client's packets were sent to.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from mitmproxy import http
from mitmproxy.options import Options
from mitmproxy.proxy import layers, server_hooks
from mitmproxy.tls import ClientHelloData, TlsData

from proxy import messages, refusals
from proxy.heads import Head, UnreadableError, read_head
from proxy.http import FAILURE, Http
from proxy.http1 import HEAD_SECONDS, trailers_of
from proxy.messages import Course, Judged, Refusal, Trouble
from proxy.questions import About, Questions
from proxy.tls import ALPNS, Tls, refuses_certificate, wants_certificate

_HANDSHAKE: Final = b"\x16"  # the first octet of a TLS record of that kind (RFC 8446 section 5.1)
_ACCESS_DENIED: Final = b"\x15\x03\x03\x00\x02\x02\x31"  # a fatal alert, before any key (RFC 8446 section 6)

type Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Means:
    """What all connections share."""

    options: Options
    questions: Questions
    tls: Tls


class Client:
    """`number` is the one by which the gate knows it, `destination` where it meant to go."""

    def __init__(self, number: int, destination: Address, writer: asyncio.StreamWriter, means: Means) -> None:
        self._destination = destination
        self._writer = writer
        self._means = means
        self._steered = messages.Steered(Course.REFUSE)
        self._upstream_failed: Refusal | None = None
        self._wants_certificate = False
        self._refused = False
        self._silence = asyncio.get_running_loop().call_later(getattr(means.options, HEAD_SECONDS), self.end)
        source, port = writer.get_extra_info("peername")[:2]
        self._about = About(means.questions, messages.Opened(number, source, port, *destination))

    def close(self) -> None:
        """It is gone."""
        self._silence.cancel()
        self._about.close()

    def end(self) -> None:
        """Hang up, whatever is still unsaid."""
        self._writer.transport.abort()

    def broken(self, what: str) -> None:
        """An error of ours ends it, and is told. A refusal is none; its last words are on their way."""
        if not self._refused:
            self._about.report(Trouble.FAULT, what)
            self.end()

    # The layers.

    async def next_layer(self, asked: Any) -> None:
        """TLS if it begins like it, else HTTP; nothing else is ever spoken here."""
        data, context = asked.data_client(), asked.context
        if context.client.tls:
            asked.layer = Http(context)
        elif data[:1] == _HANDSHAKE:
            asked.layer = layers.ServerTLSLayer(context)
            asked.layer.child_layer = layers.ClientTLSLayer(context)
        elif data:
            asked.layer = Http(context)

    async def tls_clienthello(self, hello: ClientHelloData) -> None:
        """The gate reads it. Refused, it gets an alert; the handshake then ends for want of a context."""
        self._steered = await self._about.greeted(hello.client_hello.raw_bytes())
        match self._steered.course:
            case Course.TUNNEL:
                self._silence.cancel()
                hello.ignore_connection = True
            case Course.DECRYPT:
                hello.context.server.sni = self._steered.name
                hello.establish_server_tls_first = True
            case Course.REFUSE:
                self._refused = True
                self._writer.write(_ACCESS_DENIED)

    async def tls_start_client(self, start: TlsData) -> None:
        if self._steered.course is Course.DECRYPT:
            server = start.context.server
            start.ssl_conn = self._means.tls.to_client(
                self._steered.name, server.alpn if server.tls_established else None
            )

    async def tls_start_server(self, start: TlsData) -> None:
        """With the protocols that the client offered, or the one that it has been given."""
        client = start.context.client
        offered = (client.alpn,) if client.alpn else tuple(alpn for alpn in client.alpn_offers if alpn in ALPNS)
        start.conn.alpn_offers = offered
        start.ssl_conn = self._means.tls.to_server(self._steered.name, offered, insecure=self._steered.insecure)

    async def tls_established_server(self, done: TlsData) -> None:
        self._wants_certificate = wants_certificate(done.ssl_conn)

    async def tls_failed_server(self, failed: TlsData) -> None:
        problem = failed.conn.error or "the handshake failed"
        if "TLS version" in problem:
            problem = "the server speaks no version of TLS from 1.2 on"  # mitmproxy's words are about its options
        trouble = Trouble.CLIENT_CERTIFICATE if wants_certificate(failed.ssl_conn) else Trouble.UNTRUSTED
        self._about.report(trouble, problem)
        self._upstream_failed = Refusal(f"TLS with {self._steered.name}", problem, "", trouble.value)

    async def tls_failed_client(self, failed: TlsData) -> None:
        """An alert is a client's own word; one that just goes away may have other reasons."""
        problem = failed.conn.error or ""
        if refuses_certificate(problem):
            self._about.report(Trouble.PINNED, problem)

    # The requests.

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Denied until the last statement: mitmproxy passes on what has no answer, whatever became of us."""
        self._silence.cancel()
        request = flow.request
        accept = request.headers.get("accept", "")
        flow.response = http.Response.make(503)
        refusal = (await self._judged(flow)).refusal
        if refusal is not None:
            return _refuse(flow, refusals.denied(refusal, accept))
        if self._upstream_failed is not None:
            return _refuse(flow, refusals.unreachable(self._upstream_failed, accept))
        _prepare(request)
        flow.response = None
        return None

    async def _judged(self, flow: http.HTTPFlow) -> Judged:
        if flow.error:  # mitmproxy can't tell where the request ends, or is asked for a tunnel
            return await self._about.unreadable(flow.error.msg)
        request = flow.request
        raw = request.data
        scheme = "https" if flow.client_conn.tls else "http"
        try:
            line = read_head(Head(raw.method, raw.authority, raw.path, raw.headers.fields))
        except UnreadableError as error:
            return await self._about.unreadable(str(error))
        return await self._about.asked(scheme, line)

    async def request(self, flow: http.HTTPFlow) -> None:
        if flow.request.trailers:
            flow.request.trailers = trailers_of(flow.request.trailers.fields)

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        response = flow.response
        if response is None:
            return
        if response.status_code == 101 and not (_is_websocket(flow.request) and _is_websocket(response)):
            flow.kill()  # type: ignore[no-untyped-call]  # to a protocol in which nothing would be judged
        if self._wants_certificate and 400 <= response.status_code < 500:
            self._about.report(
                Trouble.CLIENT_CERTIFICATE, f"the server asked for one, then answered {response.status_code}"
            )
        response.stream = True

    async def error(self, flow: http.HTTPFlow) -> None:
        """No answer, or not all of one."""
        failure = flow.metadata.get(FAILURE)
        if self._wants_certificate and failure is not None and not flow.response:
            self._about.report(Trouble.CLIENT_CERTIFICATE, failure.message)
            failure.message = (
                f"{self._steered.name} wants a certificate of its client, and hung up ({failure.message}). Only the "
                f"program itself can show one: with the rule `{self._steered.name} passthrough` dnsfw leaves it alone."
            )

    async def malformed(self, problem: str) -> None:
        await self._about.unreadable(problem)

    async def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """There is one place to go."""
        if data.server.address != self._destination or data.server.via:
            data.server.error = f"not where the client was going: {data.server.address}"

    async def tcp_message(self, flow: Any) -> None:
        """mitmproxy keeps what passed after an upgrade."""
        flow.messages.clear()


def _refuse(flow: http.HTTPFlow, answer: refusals.Answer) -> None:
    """A client that waits before it sends a body isn't asked for it, and its connection ends, since nobody knows if it
    comes all the same (RFC 9110 section 10.1.1)."""
    fields = list(answer.fields)
    waits = flow.request.headers.pop("expect", None)
    if waits is not None and not flow.request.is_http2:
        fields.append((b"connection", b"close"))
    flow.response = http.Response.make(answer.status, answer.body, http.Headers(fields))


def _prepare(request: http.Request) -> None:
    """For the way to the server: in origin form, its body passed on as it comes."""
    request.stream = True
    if not request.is_http2:
        request.authority = ""
    if "upgrade" in request.headers and not _is_websocket(request):
        # A client that offers another protocol (h2c) takes this one as well (RFC 9110 section 7.8).
        for name in ("upgrade", "http2-settings", "connection"):
            request.headers.pop(name, None)


def _is_websocket(message: http.Message) -> bool:
    return str(message.headers.get("upgrade", "")).strip().lower() == "websocket"
