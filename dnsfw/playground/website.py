"""The playground's web sites: HTTP/1.1 over TCP and TLS, DNS over HTTPS (RFC 8484), and bytes by the number.

Law: one class serves every site; which one was meant is for the record to say. Enough HTTP for curl, pip and npm, no
more. `GET /bytes/N` sends N bytes, `POST /sink` takes any number; `/dns-query` answers DNS; all else is a short
greeting.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary

from dnsfw.playground import zone
from dnsfw.playground.arrival import Book
from dnsfw.playground.certificates import Certificates
from dnsfw.playground.nameserver import ends

_MAX_BODY = 1 << 20
_BLOCK = bytes(1 << 16)

type _Tls = ssl.SSLObject | ssl.SSLSocket


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class TlsNames:
    """A server's TLS context that remembers which name each client asked for (SNI), "" for none."""

    def __init__(self, certificates: Certificates) -> None:
        self._names: WeakKeyDictionary[_Tls, str] = WeakKeyDictionary()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificates.chain, certificates.key)
        self.context.sni_callback = self._note

    def of(self, connection: _Tls | None) -> str:
        return self._names.get(connection, "") if connection is not None else ""

    def _note(self, connection: _Tls, name: str | None, _context: ssl.SSLContext) -> None:
        self._names[connection] = name or ""


class Website:
    """Serves one connection after the other, each for as many requests as its client likes."""

    def __init__(self, book: Book, names: TlsNames) -> None:
        self._book, self._names = book, names

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read(reader)) is not None:
                self._record(request, writer)
                await _reply(request, writer)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # the client's affair
        finally:
            writer.close()

    def _record(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        told = f"sni={self._names.of(tls)} host={request.headers.get('host', '')} {request.method} {request.target}\n"
        self._book.record("http" if tls is None else "https", *ends(writer), told.encode() + request.body)
        if (question := _dns_question(request)) is not None:
            self._book.record("doh", *ends(writer), question)


async def _read(reader: asyncio.StreamReader) -> _Request | None:
    """The next request; None at the end. Raises ValueError for what is not HTTP."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")
    method, target, _version = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    if target == "/sink":
        await _drain(reader, length)
        length = 0
    return _Request(method, target, headers, await reader.readexactly(min(length, _MAX_BODY)))


async def _drain(reader: asyncio.StreamReader, left: int) -> None:
    while left > 0:
        left -= len(data := await reader.read(min(left, len(_BLOCK))))
        if not data:
            raise EOFError


async def _reply(request: _Request, writer: asyncio.StreamWriter) -> None:
    if (question := _dns_question(request)) is not None:
        await _send(writer, "application/dns-message", zone.answer(question, stream=True) or b"")
    elif request.target.startswith("/bytes/"):
        await _send_zeros(writer, int(request.target.removeprefix("/bytes/")))
    else:
        await _send(writer, "text/plain", f"hello from {request.headers.get('host', '')}\n".encode())


async def _send(writer: asyncio.StreamWriter, kind: str, body: bytes) -> None:
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


async def _send_zeros(writer: asyncio.StreamWriter, count: int) -> None:
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n".encode())
    for start in range(0, count, len(_BLOCK)):
        writer.write(_BLOCK[: count - start])
        await writer.drain()


def _dns_question(request: _Request) -> bytes | None:
    """The DNS message of a DoH request (RFC 8484 section 4.1)."""
    parts = urlsplit(request.target)
    if parts.path != "/dns-query":
        return None
    if request.method == "POST":
        return request.body
    encoded = parse_qs(parts.query).get("dns", [""])[0]
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except binascii.Error:
        return None
