"""Bytes passed on, both ways.

Law: streams and datagrams in, the same out; nothing is read into them.
"""

from __future__ import annotations

import asyncio

_BLOCK = 1 << 16


async def relay(near: tuple[asyncio.StreamReader, asyncio.StreamWriter], address: str, port: int) -> None:
    """Connect to `address` and copy both directions until both have ended. Raises OSError."""
    far = await asyncio.open_connection(address, port)
    await asyncio.gather(_copy(near[0], far[1]), _copy(far[0], near[1]))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(_BLOCK):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()


class DatagramForwarder(asyncio.DatagramProtocol):
    """Each datagram goes to `upstream` from a socket of its own; the first reply goes back, then that socket closes."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._under_way: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # typeshed: Base
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._forward(data, addr))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _forward(self, data: bytes, addr: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[bytes] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(lambda: _FirstReply(reply), remote_addr=self._upstream)
        try:
            transport.sendto(data)
            async with asyncio.timeout(5):
                self._transport.sendto(await reply, addr)
        except TimeoutError:
            pass  # as forwarders do: the client asks again
        finally:
            transport.close()


class _FirstReply(asyncio.DatagramProtocol):
    def __init__(self, reply: asyncio.Future[bytes]) -> None:
        self._reply = reply

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002  # the protocol's
        if not self._reply.done():
            self._reply.set_result(data)
