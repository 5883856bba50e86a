"""DNS over TLS upstream: only a server that proves its name is believed."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import dnslib
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from policy.decide import Decision
from policy.values import Action, Reason
from resolver import wire
from resolver.core import ResolverConfig
from resolver.exchange import Patience
from resolver.framing import frame
from resolver.judge import Plain
from resolver.listeners import make_listeners
from resolver.server import Resolver
from resolver.upstreams import parse_upstream

ALLOW = Decision(Action.ALLOW, Reason.ALLOW_RULE, None, None)


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


@asynccontextmanager
async def tls_upstream(certificate: Certificate, asked: list[bytes]) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            asked.append(data)
            reply = dnslib.DNSRecord.parse(data).reply(ra=1)
            for each in range(100):  # together more than one TLS record of 16 KiB holds
                text = dnslib.TXT(f"{each:0200}")
                reply.add_answer(dnslib.RR(reply.q.qname, wire.TXT, rdata=text, ttl=60))
            writer.write(frame(reply.pack()))
            await reader.read()
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


async def ask(config: ResolverConfig) -> dnslib.DNSRecord:
    resolver = Resolver(
        config, Plain(lambda _: ALLOW), lambda *_: None, time.monotonic, lambda error, _: pytest.fail(str(error))
    )
    listeners = make_listeners()
    port = listeners.port
    await resolver.serve(asyncio.get_running_loop(), listeners.udp, listeners.tcp)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        question = dnslib.DNSRecord.question("www.example.com", "TXT")
        question.add_ar(dnslib.EDNS0(udp_len=1232))
        writer.write(frame(bytes(question.pack())))
        async with asyncio.timeout(5):
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        writer.close()
        return dnslib.DNSRecord.parse(data)
    finally:
        await resolver.close()


def play(certificate: Certificate, name: str, *, trusted: bool = True) -> tuple[dnslib.DNSRecord, list[bytes]]:
    asked: list[bytes] = []

    async def scene() -> dnslib.DNSRecord:
        async with tls_upstream(certificate, asked) as port:
            upstream = parse_upstream(f"tls://127.0.0.1:{port}{name}")
            authorities = certificate.certificate if trusted else None
            return await ask(ResolverConfig((upstream,), authorities, Patience(stream=1.0, total=1.5, rounds=1)))

    return asyncio.run(scene()), asked


@pytest.mark.parametrize("name", ["#dns.example", ""], ids=["by-name", "by-address"])
def test_a_verified_server_is_believed(certificate: Certificate, name: str) -> None:
    reply, asked = play(certificate, name)
    assert (reply.header.rcode, len(reply.rr), len(asked)) == (0, 100, 1)


@pytest.mark.parametrize(
    ("name", "trusted"), [("#evil.example", True), ("#dns.example", False)], ids=["another-name", "unknown-authority"]
)
def test_any_other_server_is_told_nothing(certificate: Certificate, name: str, trusted: bool) -> None:
    reply, asked = play(certificate, name, trusted=trusted)
    assert (reply.header.rcode, asked) == (wire.SERVFAIL, [])
    assert reply.ar[0].rdata[0].data[:2] == b"\0\x17"
