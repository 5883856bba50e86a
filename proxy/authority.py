"""A certificate authority for one start of the proxy.

Law: the only file that makes a key or a certificate. Nothing here touches a file: the one key that signs is in this
process's memory and ends with it.

Two certificates, as not every verifier reads constraints on what it trusts (Java's doesn't, RFC 5280 section 6.2 leaves
it open): the root is trusted, signs the issuer, and its key is forgotten before anybody hears of it; the issuer signs
for hosts. Both carry the same constraints.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from mitmproxy.certs import DEFAULT_DHPARAM, Cert, CertStore, CertStoreEntry, DHParams
from OpenSSL import crypto

from policy.inspected import too_many

LIFETIME: Final = timedelta(hours=24)
_SLOW_CLOCKS: Final = timedelta(hours=1)  # of containers and machines that just woke
_EVERYWHERE: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


class AuthorityError(Exception):
    """No authority can be made for these hosts; the text says why."""


@dataclass(frozen=True, slots=True)
class Authority:
    """`root` is what programs are to trust, `issuer` what the proxy sends along with a host's certificate (`leaf`)."""

    root: x509.Certificate
    issuer: x509.Certificate
    store: CertStore = field(repr=False)

    def leaf(self, host: str) -> CertStoreEntry:
        """The certificate for one canonical name, made once and remembered a while. It names that host and nothing
        else, whatever the real one's says."""
        return self.store.get_cert(host, [x509.DNSName(host)])

    @property
    def root_pem(self) -> bytes:
        """For bundles."""
        return self.root.public_bytes(Encoding.PEM)

    @property
    def root_hash(self) -> str:
        """The name that OpenSSL looks for in a directory of roots (openssl-rehash(1)), without its `.0`."""
        return f"{crypto.X509.from_cryptography(self.root).subject_name_hash():08x}"


def make_authority(hosts: Sequence[str], now: datetime) -> Authority:
    """An authority of no use but for these canonical names and those below them, for a day from `now` (UTC).

    Raises AuthorityError.
    """
    if not hosts:
        raise AuthorityError("no host is inspected: an authority for none would be one for all")
    if too_many(hosts):
        raise AuthorityError(f"they name too many hosts for one certificate: {len(hosts)}")
    root_key, issuer_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    token = secrets.token_hex(4)
    above = _name(f"dnsfw {token}, this start only")
    root = _certificate(above, 1, root_key, hosts, now).issuer_name(above).sign(root_key, SHA256())
    below = _certificate(_name(f"dnsfw {token}, proxy"), 0, issuer_key, hosts, now)
    issuer = below.issuer_name(above).add_extension(_known_by(root_key), critical=False).sign(root_key, SHA256())
    store = CertStore(issuer_key, Cert(issuer), None, b"", DHParams(DEFAULT_DHPARAM))  # type: ignore[arg-type]  # EC: as good as RSA
    return Authority(root, issuer, store)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, depth: int, key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], now: datetime
) -> x509.CertificateBuilder:
    """All but its issuer. `depth` authorities may stand below it."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLOW_CLOCKS)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(_signs_certificates(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_constraints(hosts), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _signs_certificates() -> x509.KeyUsage:
    return x509.KeyUsage(
        key_cert_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _known_by(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _constraints(hosts: Sequence[str]) -> x509.NameConstraints:
    """Each of `hosts`, and what stands below it. A kind of name that is not constrained is free (RFC 5280 section
    4.2.1.10), so that "no address" has to be said."""
    return x509.NameConstraints([x509.DNSName(host) for host in hosts], [x509.IPAddress(all_) for all_ in _EVERYWHERE])
