"""sendmmsg(2), which Python has no call for: glibc's resolver sends its A and AAAA questions with one.

Law: standard library only; run by its text, in processes that see no other module.
"""

from __future__ import annotations

import ctypes
import socket
import struct


def sendmmsg(sock: socket.socket, data: bytes, host: str, port: int) -> None:
    """Send the same datagram twice. Raises OSError."""
    address = struct.pack("=H", sock.family) + struct.pack("!H", port)
    if sock.family == socket.AF_INET:
        address += socket.inet_pton(socket.AF_INET, host) + bytes(8)
    else:
        address += bytes(4) + socket.inet_pton(socket.AF_INET6, host) + bytes(4)
    name, body = (ctypes.create_string_buffer(raw, len(raw)) for raw in (address, data))
    part = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(body), len(data)), 16)
    head = ctypes.addressof(name), len(address), ctypes.addressof(part), 1
    message = struct.pack("=QI4xQQ32x", *head)  # struct mmsghdr: no control data, no flags
    both = ctypes.create_string_buffer(message * 2, len(message) * 2)
    if ctypes.CDLL(None, use_errno=True).sendmmsg(sock.fileno(), both, 2, 0) != 2:
        raise OSError(ctypes.get_errno(), "sendmmsg")
