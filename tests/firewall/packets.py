"""Packets put together for tests, and one that a kernel would have checked."""

from __future__ import annotations

import struct
from ipaddress import ip_address

CLIENT = {4: "198.18.0.2", 6: "2001:db8::2"}
SERVER = {4: "198.51.100.80", 6: "2001:db8:a::80"}
SYN, RST, PUSH_ACK, SYN_ACK, JUST_ACK = 0x02, 0x04, 0x18, 0x12, 0x10


def tcp(
    sequence: int,
    flags: int,
    data: bytes = b"",
    *,
    version: int = 4,
    port: int = 443,
    options: bytes = b"",
    acknowledged: int = 1,
) -> bytes:
    """From CLIENT's port 40000."""
    offset = 5 + len(options) // 4 << 4
    fixed = struct.pack("!HHIIBBHHH", 40000, port, sequence % 2**32, acknowledged, offset, flags, 1000, 0, 0)
    return ip(6, fixed + options + data, version=version)


def udp(data: bytes, *, version: int = 4, port: int = 443) -> bytes:
    return ip(17, struct.pack("!HHHH", 40000, port, 8 + len(data), 0) + data, version=version)


def ip(proto: int, payload: bytes, *, version: int = 4) -> bytes:
    src, dst = (ip_address(end[version]).packed for end in (CLIENT, SERVER))
    if version == 4:
        return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, 0x4000, 64, proto, 0, src, dst) + payload
    return struct.pack("!IHBB16s16s", 0x6000_0000, len(payload), proto, 64, src, dst) + payload


def sums_up(words: bytes) -> bool:
    """Is the ones' complement sum of what has its checksum in it all ones? (RFC 1071 section 1)"""
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return bool(total == 0xFFFF)
