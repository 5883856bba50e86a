"""The real servers of a bed: nginx, and a Python server that does what nginx doesn't.

Law: outside, on the bed's addresses; certificates from the bed's directory. nginx tells what it understood; the Python
server, what it received, by way of nginx too (/sink).
"""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests import features
from tests.proxy.bed import MUTUAL, NGINX, OLD, PATIENCE, PYTHON, Bed

_NGINX = """
daemon off; master_process off; user root; pid {d}/nginx.pid; error_log {d}/nginx.log;
events {{ worker_connections 256; }}
http {{
  access_log off; server_tokens off; large_client_header_buffers 4 64k; client_max_body_size 0;
  client_body_temp_path {d}/1; proxy_temp_path {d}/2; fastcgi_temp_path {d}/3;
  uwsgi_temp_path {d}/4; scgi_temp_path {d}/5;
  ssl_certificate {d}/site.pem; ssl_certificate_key {d}/site.key; ssl_protocols TLSv1.2 TLSv1.3;
  server {{
    listen {v4}:443 ssl http2 default_server; listen [{v6}]:443 ssl http2 default_server;
    listen {v4}:80 default_server; listen [{v6}]:80 default_server;
    location / {{ default_type text/plain; return 200 "$host|$uri\n"; }}
    location /files/ {{ root {d}/www; }}
    location = /sink {{ proxy_pass http://{py}; proxy_http_version 1.1; proxy_request_buffering off; }}
    location /moved {{ return 302 /secret; }}
    location /trailer/ {{ root {d}/www; add_trailer X-Sum 42; }}
  }}
  server {{ listen {old}:443 ssl; ssl_protocols TLSv1.1; ssl_ciphers ALL:@SECLEVEL=0; }}
  server {{
    listen {v4}:443 ssl http2; server_name mutual.example;
    ssl_verify_client on; ssl_client_certificate {d}/ca.pem;
  }}
  server {{
    listen {v4}:443 ssl http2; server_name wrong.example lax.example;
    ssl_certificate {d}/wrong.pem; ssl_certificate_key {d}/wrong.key;
    location / {{ return 200 "wrong\n"; }}
  }}
}}
"""


@contextmanager
def nginx(bed: Bed) -> Iterator[None]:
    """Answers with the host and the path that it understood; files of `www` below /files/."""
    file = bed.directory / "nginx.conf"
    file.write_text(_NGINX.format(d=bed.directory, v4=NGINX[4], v6=NGINX[6], old=OLD[4], py=PYTHON[4]))
    program = features.nginx()
    assert program is not None
    log = bed.directory / "nginx.log"
    with bed.outside.entered():
        server = subprocess.Popen([program, "-c", str(file), "-p", str(bed.directory), "-e", str(log)])
    try:
        _wait(bed, NGINX[4])
        yield
    finally:
        server.terminate()
        server.wait(PATIENCE)


def _wait(bed: Bed, ip: str) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with bed.outside.entered(), suppress(OSError), socket.create_connection((ip, 80), PATIENCE):
            return
        time.sleep(0.01)
    raise AssertionError(f"nobody listens on {ip}: {(bed.directory / 'nginx.log').read_text()}")


class Origin:
    """HTTP/1.1 as its path says. `heads` are all request heads, `bodies` the sizes of what was sent to /sink."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[int] = []
        self.resume = threading.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError, ssl.SSLError):
                while await self._next(reader, writer):
                    pass
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()  # it is all over

    async def _next(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        path = head.split(b" ")[1].partition(b"?")[0]
        return await self._answer(path.decode(), head, reader, writer)

    async def _answer(self, path: str, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """False ends the connection."""
        match path.split("/")[1:]:
            case ["bytes", count]:
                await _send_zeros(writer, int(count))
            case ["sink"]:
                self.bodies.append(await _body(head, reader))
                writer.write(_response(f"{self.bodies[-1]}\n".encode()))
            case ["trailers"]:
                trailers = await _chunked(reader)
                head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Echo\r\n\r\n"
                writer.write(head + b"3\r\nabc\r\n0\r\nX-Echo: " + b"|".join(trailers) + b"\r\n\r\n")
            case ["events"]:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
                await asyncio.to_thread(self.resume.wait, PATIENCE)
                writer.write(b"data: 2\n\n")
                return False
            case ["socket" | "other-protocol"]:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
                while data := await reader.read(100):
                    writer.write(data.upper())
            case ["hints"]:
                writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + _response(b"after the hints\n"))
            case ["hang-up"]:
                return False
            case _:
                writer.write(_response(head))
        await writer.drain()
        return True


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def _send_zeros(writer: asyncio.StreamWriter, count: int) -> None:
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n".encode())
    block = bytes(1 << 18)
    for start in range(0, count, len(block)):
        writer.write(block[: count - start])
        await writer.drain()


async def _body(head: bytes, reader: asyncio.StreamReader) -> int:
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    left = size = int(fields[b"content-length"])
    while left:
        left -= len(data := await reader.read(min(left, 1 << 18)))
        if not data:
            raise EOFError
    return size


async def _chunked(reader: asyncio.StreamReader) -> list[bytes]:
    """The trailers."""
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
    lines: list[bytes] = []
    while line := (await reader.readline()).strip():
        lines.append(line)
    return lines


@contextmanager
def python_server(bed: Bed) -> Iterator[Origin]:
    """HTTP/1.1 on the Python server's addresses, with TLS and without."""
    origin = Origin()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bed.directory / "site.pem", bed.directory / "site.key")
    context.set_alpn_protocols(["http/1.1"])
    mutual = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    mutual.load_cert_chain(bed.directory / "site.pem", bed.directory / "site.key")
    mutual.load_verify_locations(bed.directory / "ca.pem")
    mutual.verify_mode = ssl.CERT_REQUIRED
    contexts: dict[int | str, ssl.SSLContext | None] = {80: None, 443: context, MUTUAL[4]: mutual}
    with bed.outside.entered():
        listeners = {
            (ip, port): socket.create_server((ip, port), family=socket.AF_INET6 if ":" in ip else socket.AF_INET)
            for ip, port in ((PYTHON[4], 80), (PYTHON[4], 443), (PYTHON[6], 80), (PYTHON[6], 443), (MUTUAL[4], 443))
        }
    loops: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        servers = [
            await asyncio.start_server(origin.serve, sock=listener, ssl=contexts.get(ip, contexts[port]))
            for (ip, port), listener in listeners.items()
        ]
        ended = asyncio.Event()
        loops.put((asyncio.get_running_loop(), ended))
        await ended.wait()
        for server in servers:
            server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="origin", daemon=True)
    thread.start()
    loop, ended = loops.get(timeout=PATIENCE)
    try:
        yield origin
    finally:
        origin.resume.set()
        loop.call_soon_threadsafe(ended.set)
        thread.join(PATIENCE)
