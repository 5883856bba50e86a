"""Echo requests, for a speaker (speakers.py) to run: its arguments are family, address and the source that the kernel
chooses. What it sends, it says as a flow, the identifier in the place of a port."""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

SIX = sys.argv[1] == "6"
PROTO = 58 if SIX else 1


def ping_socket(kind: int = socket.SOCK_DGRAM) -> socket.socket:
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")  # anybody may
    return socket.socket(socket.AF_INET6 if SIX else socket.AF_INET, kind, PROTO)


def echo(number: int = 0) -> bytes:
    return struct.pack("!BBHHH", 128 if SIX else 8, 0, 0, number, 1)


def say_ping(number: int) -> None:
    print(PROTO, sys.argv[3], number, sys.argv[2], 0, flush=True)


def ping(sock: socket.socket) -> None:
    sock.sendto(echo(), (sys.argv[2], 0))
    say_ping(sock.getsockname()[1])
