"""Servers that take whatever is said, and the classic services that benchmarks measure against.

Law: each class is one port's protocol. The sinks record; the services don't, so that they cost nothing.
"""

from __future__ import annotations

import asyncio

from dnsfw.playground.arrival import Book, Endpoint

_BLOCK = bytes(1 << 18)


class UdpSink(asyncio.DatagramProtocol):
    """Records a datagram and acknowledges it in two bytes."""

    def __init__(self, book: Book, own: Endpoint) -> None:
        self._book, self._own = book, own

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # typeshed: Base
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._book.record("udp", (addr[0], addr[1]), self._own, data)
        self._transport.sendto(b"ok", addr)


class _Service(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # typeshed: Base
        self._transport = transport


class TcpSink(_Service):
    """Records what arrives, segment by segment, and acknowledges each in two bytes."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def data_received(self, data: bytes) -> None:
        peer, own = self._transport.get_extra_info("peername"), self._transport.get_extra_info("sockname")
        self._book.record("tcp", (peer[0], peer[1]), (own[0], own[1]), data)
        self._transport.write(b"ok")


class Echo(_Service):
    """RFC 862 over TCP: latency."""

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class UdpEcho(asyncio.DatagramProtocol):
    """RFC 862 over UDP."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # typeshed: Base
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


class Discard(_Service):
    """RFC 863: uploads."""

    def data_received(self, data: bytes) -> None:
        pass


class Daytime(_Service):
    """In the manner of RFC 867, with a constant for the time: answers at once and closes, for connections a second."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # typeshed: Base
        transport.write(b"ok")
        transport.close()


class Chargen(_Service):
    """RFC 864, of zeros: sends until the client has had enough: downloads."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # typeshed: Base
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=len(_BLOCK), low=0)
        self.resume_writing()

    def pause_writing(self) -> None:
        self._flowing = False

    def resume_writing(self) -> None:
        self._flowing = True
        while self._flowing and not self._transport.is_closing():
            self._transport.write(_BLOCK)
