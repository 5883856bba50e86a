"""The internet's process: every server of it, and the book of what arrived.

Law: composition only: which server listens where, and the questions that the playground may ask. Runs as
`python -m dnsfw.playground.internet NETNS_FD DIRECTORY [--tap]`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from dnsfw.playground import atlas
from dnsfw.playground.arrival import Book
from dnsfw.playground.atlas import Place
from dnsfw.playground.certificates import Certificates
from dnsfw.playground.control import Message, answer_questions
from dnsfw.playground.nameserver import StreamNameserver, UdpNameserver
from dnsfw.playground.sinks import Chargen, Daytime, Discard, Echo, TcpSink, UdpEcho, UdpSink
from dnsfw.playground.tap import Tap
from dnsfw.playground.website import TlsNames, Website
from dnsfw.playground.wire import WIRE

_BACKLOG = 1024

type _Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Internet:
    """All servers, listening from `open` until its stack unwinds."""

    def __init__(self, book: Book, names: TlsNames, stack: AsyncExitStack) -> None:
        self._book, self._names, self._stack = book, names, stack
        self._website = Website(book, names)

    async def open(self) -> None:
        await self._open_nameservers()
        await self._open_sites()
        await self._open_sinks()
        await self._open_services()

    async def _open_nameservers(self) -> None:
        for place in (atlas.UPSTREAM, atlas.SECOND_UPSTREAM, atlas.SILENT_UPSTREAM, atlas.EVIL_NAMESERVER):
            silent = place is atlas.SILENT_UPSTREAM
            await self._streams((place,), 53, StreamNameserver(self._book, "dns-tcp", silent=silent).serve)
            for address in place.addresses:
                await self._datagrams(address, 53, UdpNameserver(self._book, (address, 53), silent=silent))
        dot = StreamNameserver(self._book, "dot")
        await self._streams((atlas.EVIL_NAMESERVER, atlas.DOH), 853, dot.serve, tls=True)

    async def _open_sites(self) -> None:
        everyone = (atlas.ALLOWED, atlas.SHARED, atlas.EVIL, atlas.DOH)
        await self._streams(everyone, 443, self._website.serve, tls=True)
        await self._streams(everyone, 80, self._website.serve)

    async def _open_sinks(self) -> None:
        for place in (atlas.EVIL, atlas.SHARED):
            for port in atlas.TCP_SINK_PORTS:
                await self._protocol(place, port, lambda: TcpSink(self._book))
            for port in atlas.UDP_SINK_PORTS:
                for address in place.addresses:
                    await self._datagrams(address, port, UdpSink(self._book, (address, port)))

    async def _open_services(self) -> None:
        await self._protocol(atlas.ALLOWED, atlas.ECHO_PORT, Echo)
        await self._protocol(atlas.ALLOWED, atlas.DISCARD_PORT, Discard)
        await self._protocol(atlas.ALLOWED, atlas.DAYTIME_PORT, Daytime)
        await self._protocol(atlas.ALLOWED, atlas.CHARGEN_PORT, Chargen)
        for address in atlas.ALLOWED.addresses:
            await self._datagrams(address, atlas.ECHO_PORT, UdpEcho())

    async def _streams(self, places: Iterable[Place], port: int, serve: _Serve, *, tls: bool = False) -> None:
        context = self._names.context if tls else None
        for place in places:
            server = await asyncio.start_server(serve, place.addresses, port, ssl=context, backlog=_BACKLOG)
            self._stack.callback(server.close)

    async def _protocol(self, place: Place, port: int, factory: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(factory, place.addresses, port, backlog=_BACKLOG)
        self._stack.callback(server.close)

    async def _datagrams(self, address: str, port: int, protocol: asyncio.DatagramProtocol) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, (address, port), family=family)
        self._stack.callback(transport.close)


class Clerk:
    """Answers the playground's questions about the book."""

    def __init__(self, book: Book, arrived: asyncio.Event, tap: Tap | None) -> None:
        self._book, self._arrived, self._tap = book, arrived, tap

    async def answer(self, request: Message) -> Message:
        """`{"ask": "arrivals", "token": text or null, "within": seconds}` waits for the first; or `"forget"`."""
        self._catch_up()
        if request["ask"] == "forget":
            self._book.clear()
            return {}
        with suppress(TimeoutError):
            async with asyncio.timeout(request["within"]):
                await self._first(request["token"])
        self._catch_up()
        arrivals = [arrival.to_json() for arrival in self._book.with_token(request["token"])]
        return {"arrivals": arrivals, "missed": self._book.forgotten + (self._tap.missed if self._tap else 0)}

    async def _first(self, token: str | None) -> None:
        while not self._book.with_token(token):
            self._arrived.clear()
            await self._arrived.wait()

    def _catch_up(self) -> None:
        if self._tap is not None:
            self._tap.catch_up()


async def run(directory: Path, *, tapped: bool) -> None:
    arrived = asyncio.Event()
    book = Book(arrived.set)
    async with AsyncExitStack() as stack:
        tap = stack.enter_context(Tap(book, WIRE)) if tapped else None
        names = TlsNames(Certificates(directory / "ca.pem", directory / "site.pem", directory / "site.key"))
        await Internet(book, names, stack).open()
        await answer_questions(Clerk(book, arrived, tap).answer)


def main(arguments: list[str]) -> None:
    os.setns(int(arguments[0]), os.CLONE_NEWNET)
    directory = Path(arguments[1])
    asyncio.run(run(directory, tapped="--tap" in arguments))
    shutil.rmtree(directory, ignore_errors=True)  # we outlive a playground that was killed


if __name__ == "__main__":
    main(sys.argv[1:])
