"""What runs in the guarded and in the unguarded world: connects, asks or downloads, and says how it went as JSON.

Law: standard library only, run by path in an isolated interpreter; bounded in count or time.

    client.py connects NAME PORT COUNT      {"p50": µs, "p99": µs, "rate": connects/s}
    client.py greet NAME PORT COUNT         {"p50": µs, "p99": µs}         from connect to a TLS server's first octet
    client.py ask NAME PORT COUNT           {"rate": HTTPS requests/s}     on one connection
    client.py ask-anew NAME PORT COUNT      {"rate": HTTPS requests/s}     each on a connection of its own
    client.py download NAME PORT SECONDS    {"rate": MB/s}
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
import time

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME_WAIT, so that ports don't run out
_WARM_UP = 50


def connects(host: str, port: int, count: int) -> dict[str, float]:
    """One after the other from one client, each to the address that `host` resolved to."""
    target = _resolve(host, port)
    for _ in range(_WARM_UP):
        _connect(target)
    started = time.perf_counter()
    times = sorted(_connect(target) for _ in range(count))
    rate = count / (time.perf_counter() - started)
    return {"p50": times[count // 2] * 1e6, "p99": times[count * 99 // 100] * 1e6, "rate": rate}


def _connect(target: tuple[str, int]) -> float:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        client.settimeout(5)
        started = time.perf_counter()
        client.connect(target)
        return time.perf_counter() - started


def greet(host: str, port: int, count: int) -> dict[str, float]:
    """What the first word of a TLS server costs its client; nothing is encrypted on this side."""
    target, hello = _resolve(host, port), _hello(host)
    for _ in range(_WARM_UP):
        _greet(target, hello)
    times = sorted(_greet(target, hello) for _ in range(count))
    return {"p50": times[count // 2] * 1e6, "p99": times[count * 99 // 100] * 1e6}


def _greet(target: tuple[str, int], hello: bytes) -> float:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        client.settimeout(5)
        started = time.perf_counter()
        client.connect(target)
        client.sendall(hello)
        if not client.recv(1):
            raise ConnectionError("the server ended too early")
        return time.perf_counter() - started


def _hello(host: str) -> bytes:
    out = ssl.MemoryBIO()
    try:
        _trusting().wrap_bio(ssl.MemoryBIO(), out, server_hostname=host).do_handshake()
    except ssl.SSLWantReadError:
        return out.read()
    raise ConnectionError("no handshake")


def _trusting() -> ssl.SSLContext:
    """Certificates play no part: they would cost both worlds the same."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ask(host: str, port: int, count: int) -> dict[str, float]:
    """One request after the other on one connection."""
    with _connected(_resolve(host, port), host, _trusting()) as client:
        _ask(client, host)
        started = time.perf_counter()
        for _ in range(count):
            _ask(client, host)
        return {"rate": count / (time.perf_counter() - started)}


def ask_anew(host: str, port: int, count: int) -> dict[str, float]:
    """One connection after the other, each with a full handshake and one request."""
    target, context = _resolve(host, port), _trusting()
    started = time.perf_counter()
    for _ in range(count):
        with _connected(target, host, context) as client:
            _ask(client, host)
    return {"rate": count / (time.perf_counter() - started)}


def _connected(target: tuple[str, int], host: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(target, timeout=5)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    return context.wrap_socket(plain, server_hostname=host)


def _ask(client: ssl.SSLSocket, host: str) -> None:
    client.sendall(f"GET /bytes/1024 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < 1024:
        part = client.recv(4096)
        if not part:
            raise ConnectionError("the server ended too early")
        received += part


def download(host: str, port: int, seconds: int) -> dict[str, float]:
    """Read what the server sends for `seconds`, after a tenth of a second that doesn't count."""
    buffer = bytearray(1 << 18)
    with socket.create_connection(_resolve(host, port), timeout=5) as client:
        _read_until(client, buffer, time.perf_counter() + 0.1)
        started = time.perf_counter()
        received = _read_until(client, buffer, started + seconds)
        return {"rate": received / (time.perf_counter() - started) / 1e6}


def _read_until(client: socket.socket, buffer: bytearray, deadline: float) -> int:
    received = 0
    while time.perf_counter() < deadline:
        count = client.recv_into(buffer)
        if count == 0:
            raise ConnectionError("the server ended too early")
        received += count
    return received


def _resolve(host: str, port: int) -> tuple[str, int]:
    address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    return str(address[0]), int(address[1])


if __name__ == "__main__":
    work = {"connects": connects, "greet": greet, "ask": ask, "ask-anew": ask_anew, "download": download}[sys.argv[1]]
    print(json.dumps(work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
