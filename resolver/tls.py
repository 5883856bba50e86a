"""DNS over TLS towards an upstream: whom to believe.

Law: the standard library's TLS and nothing else. The server's certificate is always verified (RFC 7858 4.2,
RFC 8310 8.1): there is no opportunistic mode, an upstream that can't prove itself is one that does not answer.
"""

from __future__ import annotations

import ssl
from pathlib import Path


def verifying_context(authorities: Path | None) -> ssl.SSLContext:
    """A client context that trusts the system's authorities, or those in the file `authorities` alone.

    Raises OSError if that can't be read.
    """
    context = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9325 3.1.1
    context.set_alpn_protocols(["dot"])  # RFC 7858, IANA TLS ALPN protocol ids
    return context
