"""What runs in the guarded and in the unguarded world: connects, or downloads, and says how it went as JSON.

Law: standard library only, run by path in an isolated interpreter; bounded in count or time.

    client.py connects NAME PORT COUNT      {"p50": µs, "p99": µs, "rate": connects/s}
    client.py download NAME PORT SECONDS    {"rate": MB/s}
"""

from __future__ import annotations

import json
import socket
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
    work = {"connects": connects, "download": download}[sys.argv[1]]
    print(json.dumps(work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
