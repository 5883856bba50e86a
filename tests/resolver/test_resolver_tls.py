"""DNS over TLS upstream: only a server that proves its name is believed."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import dnslib
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from resolver import wire
from resolver.core import ResolverConfig
from resolver.exchange import Patience
from resolver.framing import frame
from resolver.judge import Plain
from resolver.listeners import make_listeners
from resolver.server import Resolver
from resolver.upstreams import parse_upstream
from tests.resolver.world import ALLOW, read_frame


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for dns.example and 127.0.0.1, and its key, as files."""

    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test's upstream")])
    names = x509.SubjectAlternativeName([x509.DNSName("dns.example"), x509.IPAddress(ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime.now(UTC) - timedelta(1)).not_valid_after(
        datetime.now(UTC) + timedelta(1)
    )
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    files = Certificate(folder / "certificate.pem", folder / "key.pem")
    files.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@dataclass
class Seen:
    """What an upstream was asked, over how many connections."""

    asked: list[bytes] = field(default_factory=list)
    connections: int = 0


@asynccontextmanager
async def tls_upstream(certificate: Certificate, seen: Seen) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        try:
            while True:
                data = await read_frame(reader)
                seen.asked.append(data)
                reply = dnslib.DNSRecord.parse(data).reply(ra=1)
                for each in range(100):  # together more than one TLS record of 16 KiB holds
                    text = dnslib.TXT(f"{each:0200}")
                    reply.add_answer(dnslib.RR(reply.q.qname, wire.TXT, rdata=text, ttl=60))
                writer.write(frame(reply.pack()))
        except (asyncio.IncompleteReadError, OSError):
            pass  # the resolver hung up, as some of the tests want it to
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def ask(config: ResolverConfig, names: Sequence[str]) -> list[dnslib.DNSRecord]:
    """The reply to a question for each name, one after the other."""
    resolver = Resolver(
        config, Plain(lambda _: ALLOW), lambda *_: None, time.monotonic, lambda error, _: pytest.fail(str(error))
    )
    listeners = make_listeners()
    port = listeners.port
    await resolver.serve(asyncio.get_running_loop(), listeners.udp, listeners.tcp)
    replies = []
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            for name in names:
                question = dnslib.DNSRecord.question(name, "TXT")
                question.add_ar(dnslib.EDNS0(udp_len=1232))
                writer.write(frame(bytes(question.pack())))
                replies.append(dnslib.DNSRecord.parse(await read_frame(reader)))
        writer.close()
    finally:
        await resolver.close()
    return replies


def play(
    certificate: Certificate, server: str, names: Sequence[str] = ("www.example.com",), *, trusted: bool = True
) -> tuple[list[dnslib.DNSRecord], Seen]:
    seen = Seen()

    async def scene() -> list[dnslib.DNSRecord]:
        async with tls_upstream(certificate, seen) as port:
            upstream = parse_upstream(f"tls://127.0.0.1:{port}{server}")
            authorities = certificate.certificate if trusted else None
            patience = Patience(stream=1.0, total=1.5, rounds=1)
            return await ask(ResolverConfig((upstream,), authorities, patience), names)

    return asyncio.run(scene()), seen


@pytest.mark.parametrize("server", ["#dns.example", ""], ids=["by-name", "by-address"])
def test_a_verified_server_is_believed(certificate: Certificate, server: str) -> None:
    [reply], seen = play(certificate, server)
    assert (reply.header.rcode, len(reply.rr), len(seen.asked)) == (0, 100, 1)


def test_one_handshake_serves_many_questions_and_their_sizes_tell_nothing(certificate: Certificate) -> None:
    """RFC 7858 3.4, RFC 8467 4.1."""
    names = ["a.example", "www.a-much-longer-name-than-the-other.example.com", "b.example"]
    replies, seen = play(certificate, "#dns.example", names)
    assert [reply.header.rcode for reply in replies] == [0, 0, 0]
    assert ([len(each) for each in seen.asked], seen.connections) == ([128] * 3, 1)


@pytest.mark.parametrize(
    ("server", "trusted"), [("#evil.example", True), ("#dns.example", False)], ids=["another-name", "unknown-authority"]
)
def test_any_other_server_is_told_nothing(certificate: Certificate, server: str, trusted: bool) -> None:
    [reply], seen = play(certificate, server, trusted=trusted)
    assert (reply.header.rcode, seen.asked) == (wire.SERVFAIL, [])
    assert reply.ar[0].rdata[0].data[:2] == b"\0\x17"
