"""The playground's DNS servers: over UDP, TCP, and TLS.

Law: transport only; `zone` makes the answers. Every question is recorded before it is answered.
"""

from __future__ import annotations

import asyncio

from dnsfw.playground import zone
from dnsfw.playground.arrival import Book, Endpoint


class UdpNameserver(asyncio.DatagramProtocol):
    """One address's port 53. A silent one records and never answers."""

    def __init__(self, book: Book, own: Endpoint, *, silent: bool = False) -> None:
        self._book, self._own, self._silent = book, own, silent

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # typeshed: Base
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._book.record("dns-udp", (addr[0], addr[1]), self._own, data)
        if not self._silent and (reply := zone.answer(data, stream=False)) is not None:
            self._transport.sendto(reply, addr)


class StreamNameserver:
    """Questions with a length before each (RFC 1035 section 4.2.2), any number on a connection."""

    def __init__(self, book: Book, way: str, *, silent: bool = False) -> None:
        self._book, self._way, self._silent = book, way, silent

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2))
                self._take(await reader.readexactly(length), writer)
                await writer.drain()
        except asyncio.IncompleteReadError as rest:
            if rest.partial:  # not DNS at all: still something that arrived
                self._book.record(self._way, *ends(writer), rest.partial)
        except (OSError, EOFError):
            pass  # the client's affair
        finally:
            writer.close()

    def _take(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        self._book.record(self._way, *ends(writer), data)
        if not self._silent and (reply := zone.answer(data, stream=True)) is not None:
            writer.write(len(reply).to_bytes(2) + reply)


def ends(writer: asyncio.StreamWriter) -> tuple[Endpoint, Endpoint]:
    """Who called, and which of our addresses."""
    peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    return (peer[0], peer[1]), (own[0], own[1])
