"""TLS on both sides of the proxy.

Law: the only file that speaks to OpenSSL. Towards clients, a certificate of ours for the one name they asked for;
towards servers, TLS 1.2 or later and a certificate that the system's authorities vouch for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cachetools import LRUCache
from mitmproxy.net.tls import Method, Verify, Version, create_proxy_server_context
from OpenSSL import SSL

from proxy.authority import Authority

ALPNS = (b"h2", b"http/1.1", b"http/1.0")
_HOSTS = 256  # contexts that are kept
_ABOUT_A_CERTIFICATE = re.compile(
    "alert (unknown ca|(bad|unsupported) certificate|certificate (unknown|expired|revoked))"
)
_REQUESTED = "a certificate of the client"
# Forward secrecy and authenticated encryption alone (TLS 1.2; TLS 1.3 has nothing else).
_CIPHERS = ("ECDHE+AESGCM", "ECDHE+CHACHA20", "DHE+AESGCM", "DHE+CHACHA20")


class Tls:
    """`roots` is a PEM file of those who vouch for servers."""

    def __init__(self, authority: Authority, roots: Path) -> None:
        self._authority = authority
        self._contexts: LRUCache[str, SSL.Context] = LRUCache(_HOSTS)
        self._verified = _towards_servers(roots, Verify.VERIFY_PEER)
        self._unverified = _towards_servers(roots, Verify.VERIFY_NONE)

    def to_client(self, name: str, alpn: bytes | None) -> SSL.Connection:
        """For a client that asked for `name`. `alpn` is what the server chose, b"" for nothing; None where no server
        was asked."""
        context = self._contexts.get(name)
        if context is None:
            context = self._contexts[name] = self._for(name)
        connection = SSL.Connection(context)
        connection.set_app_data(alpn)
        connection.set_accept_state()
        return connection

    def _for(self, name: str) -> SSL.Context:
        leaf = self._authority.leaf(name)
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.use_certificate(leaf.cert.to_cryptography())
        context.add_extra_chain_cert(self._authority.issuer)
        context.use_privatekey(leaf.privatekey)
        context.set_alpn_select_callback(_select)
        return context

    def to_server(self, name: str, alpns: Sequence[bytes], *, insecure: bool) -> SSL.Connection:
        """To a server that must prove to be `name`, unless `insecure`."""
        connection = SSL.Connection(self._unverified if insecure else self._verified)
        connection.set_tlsext_host_name(name.encode("ascii"))
        _must_be(connection, name.encode("ascii"))
        if alpns:
            connection.set_alpn_protos(list(alpns))
        connection.set_connect_state()
        return connection


def _towards_servers(roots: Path, verify: Verify) -> SSL.Context:
    context = create_proxy_server_context(
        method=Method.TLS_CLIENT_METHOD,
        min_version=Version.TLS1_2,
        max_version=Version.UNBOUNDED,
        cipher_list=_CIPHERS,
        ecdh_curve=None,
        verify=verify,
        ca_path=None,
        ca_pemfile=str(roots),
        client_cert=None,
        legacy_server_connect=False,
    )
    context.set_info_callback(_note_request)
    return context


def _note_request(connection: SSL.Connection, _where: int, _result: int) -> None:
    if connection.get_state_string().endswith(b"read server certificate request"):
        connection.set_app_data(_REQUESTED)


def wants_certificate(connection: SSL.Connection | None) -> bool:
    """Did the server ask for a client's certificate?"""
    return connection is not None and connection.get_app_data() is _REQUESTED


def refuses_certificate(problem: str) -> bool:
    """Is that a client's alert about our certificate (RFC 8446 section 6.2), in OpenSSL's words?"""
    return _ABOUT_A_CERTIFICATE.search(problem) is not None


def _must_be(connection: SSL.Connection, name: bytes) -> None:
    """Have OpenSSL compare the certificate's names (X509_check_host(3)); pyOpenSSL has no public way to say so."""
    library: Any = SSL._lib  # type: ignore[attr-defined]  # noqa: SLF001
    parameters = library.SSL_get0_param(connection._ssl)  # noqa: SLF001
    flags = library.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | library.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
    library.X509_VERIFY_PARAM_set_hostflags(parameters, flags)
    if library.X509_VERIFY_PARAM_set1_host(parameters, name, len(name)) != 1:
        raise SSL.Error(f"not a name to verify: {name!r}")


def _select(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """What the server chose, so that both sides speak the same; what we know best, where no server was asked."""
    chosen: bytes | None = connection.get_app_data()
    for alpn in ALPNS if chosen is None else (chosen,):
        if alpn in offered:
            return alpn
    return SSL.NO_OVERLAPPING_PROTOCOLS
