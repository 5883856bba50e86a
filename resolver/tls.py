"""DNS over TLS towards an upstream: the records between a socket and a message.

Law: sans-IO, on the standard library's memory buffers. The server's certificate is always verified (RFC 7858 4.2,
RFC 8310 8.1): there is no opportunistic mode, an upstream that can't prove itself is one that does not answer.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

_READ: Final = 0x10000


def verifying_context(authorities: Path | None) -> ssl.SSLContext:
    """A client context that trusts the system's authorities, or those in the file `authorities` alone.

    Raises OSError if that can't be read.
    """
    context = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9325 3.1.1
    context.set_alpn_protocols(["dot"])  # RFC 7858, IANA TLS ALPN protocol ids
    return context


class TlsChannel:
    """One client connection that says `opening` as soon as the server has proved that it is `name`.

    `receive` raises ssl.SSLError, an OSError, when it has not, or when the stream is not TLS.
    """

    def __init__(self, context: ssl.SSLContext, name: str, opening: bytes) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._opening = opening
        self.receive(b"")

    def receive(self, data: bytes) -> bytes:
        """Octets off the wire in, what they say out."""
        self._incoming.write(data)
        said = bytearray()
        try:
            if self._opening:
                self._tls.do_handshake()
                self._tls.write(self._opening)
                self._opening = b""
            while piece := self._tls.read(_READ):
                said += piece
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still under way
        return bytes(said)

    def to_send(self) -> bytes:
        """Octets for the wire."""
        return self._outgoing.read()
