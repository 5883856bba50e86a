"""ClientHellos: OpenSSL's, and ones put together octet by octet (RFC 8446 section 4.1.2)."""

from __future__ import annotations

import ssl
import struct

import pytest


def said(name: str | None, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """What OpenSSL's client sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = newest
    context.set_alpn_protocols(["h2", "http/1.1"])
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    return out.read()


def vector(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width) + data


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!H", kind) + vector(2, data)


def names(*entries: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, entry) for entry in entries)))


def body(extensions: bytes | None, end: bytes = b"") -> bytes:
    fixed = b"\3\3" + bytes(32) + vector(1, b"") + vector(2, b"\x13\1") + vector(1, b"\0")
    return fixed + (b"" if extensions is None else vector(2, extensions)) + end


def message(inner: bytes, kind: int = 1) -> bytes:
    return bytes([kind]) + vector(3, inner)


def records(data: bytes, size: int = 1 << 14) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"\x16\3\1" + vector(2, part) for part in parts)


def hello(extensions: bytes | None, end: bytes = b"") -> bytes:
    return records(message(body(extensions, end)))
