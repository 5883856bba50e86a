"""The laptop's process: it holds the laptop's mounts and runs what an ordinary machine has running beside the guard.

Law: composition only. A stub resolver on loopback (as systemd-resolved is), a web proxy, and a helper that takes
orders over Unix sockets (as container engines and session buses do). Runs as
`python -m dnsfw.playground.laptop NETNS_FD DIRECTORY [--stub]`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from dnsfw.machine.namespaces import bind, private_mounts
from dnsfw.playground import atlas
from dnsfw.playground.control import Message, answer_questions
from dnsfw.playground.relay import DatagramForwarder, relay

SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")  # Debian's and Ubuntu's; on the laptop, with one root more
HELPER_SOCKET = "helper.sock"  # in the playground's directory; as an abstract socket, its whole path


async def run(directory: Path, *, stub: bool) -> None:
    path = str(directory / HELPER_SOCKET)
    servers = [
        await asyncio.start_server(_proxy, None, atlas.PROXY_PORT),
        await asyncio.start_unix_server(_help, path),
        await asyncio.start_unix_server(_help, "\0" + path),
    ]
    Path(path).chmod(0o666)
    if stub:
        servers.append(await asyncio.start_server(_forward, atlas.STUB_RESOLVER, 53))
        await _open_stub()
    await answer_questions(_nothing_to_say)
    for server in servers:
        server.close()


async def _open_stub() -> None:
    loop = asyncio.get_running_loop()
    upstream = (atlas.UPSTREAM.v4, 53)
    await loop.create_datagram_endpoint(lambda: DatagramForwarder(upstream), (atlas.STUB_RESOLVER, 53))


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        await relay((reader, writer), atlas.UPSTREAM.v4, 53)


async def _proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP CONNECT (RFC 9110 section 9.3.6) to addresses."""
    with suppress(OSError, EOFError, ValueError):
        head = await reader.readuntil(b"\r\n\r\n")
        address, _, port = head.split()[1].decode().rpartition(":")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await relay((reader, writer), address.strip("[]"), int(port))
    writer.close()


async def _help(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An order is one line, `address port text`: the text goes to that address as a datagram."""
    with suppress(OSError, ValueError):
        address, port, text = (await reader.readline()).decode().split()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as outside:
            outside.sendto(text.encode(), (address, int(port)))
    writer.close()


async def _nothing_to_say(_: Message) -> Message:
    return {}


def main(arguments: list[str]) -> None:
    os.setns(int(arguments[0]), os.CLONE_NEWNET)
    directory = Path(arguments[1])
    private_mounts()
    for name in ("resolv.conf", "hosts", "nsswitch.conf"):
        bind(str(directory / name), f"/etc/{name}")
    if SYSTEM_ROOTS.exists():
        bind(str(directory / SYSTEM_ROOTS.name), str(SYSTEM_ROOTS.resolve()))
    asyncio.run(run(directory, stub="--stub" in arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
