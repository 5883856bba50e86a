"""The certificate authority, before the verifiers that programs use."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mitmproxy.certs import CertStoreEntry

from proxy.authority import LIFETIME, Authority, AuthorityError, make_authority

HOSTS = ("api.example", "cdn.example")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority(HOSTS, datetime.now(UTC))


def certificates(authority: Authority) -> list[x509.Certificate]:
    return [authority.root, authority.issuer]


@pytest.mark.parametrize("which", [0, 1], ids=["root", "issuer"])
def test_what_each_of_the_two_may(authority: Authority, which: int) -> None:
    extensions = certificates(authority)[which].extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 1 - which)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, False)
    names = extensions.get_extension_for_class(x509.NameConstraints)
    assert names.critical
    assert [name.value for name in names.value.permitted_subtrees or ()] == list(HOSTS)
    assert [str(name.value) for name in names.value.excluded_subtrees or ()] == ["0.0.0.0/0", "::/0"]


def test_keys_are_on_p256_and_the_one_that_is_kept_is_the_issuer_s(authority: Authority) -> None:
    keys = [certificate.public_key() for certificate in certificates(authority)]
    assert all(isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1" for key in keys)
    assert authority.store.default_privatekey.public_key() == keys[1] != keys[0]


def test_it_lives_for_a_day() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for certificate in certificates(make_authority(HOSTS, now)):
        assert certificate.not_valid_before_utc <= now
        assert certificate.not_valid_after_utc == now + LIFETIME == now + timedelta(hours=24)


def test_no_two_starts_have_anything_in_common() -> None:
    one, other = (make_authority(HOSTS, datetime.now(UTC)) for _ in range(2))
    assert one.root_hash != other.root_hash
    assert one.root.public_key() != other.root.public_key()
    assert one.issuer.public_key() != other.issuer.public_key()


def test_the_hash_is_openssl_s(authority: Authority) -> None:
    asked = subprocess.run(
        ["openssl", "x509", "-noout", "-hash"], input=authority.root_pem, capture_output=True, check=True
    )
    assert asked.stdout.decode().strip() == authority.root_hash


def test_a_leaf_names_its_host_alone_and_is_made_once(authority: Authority) -> None:
    leaf = authority.leaf("api.example")
    assert [name.value for name in leaf.cert.altnames] == ["api.example"]
    assert authority.leaf("api.example") is leaf
    assert authority.leaf("a.cdn.example").cert != leaf.cert


def test_an_endless_stream_of_hosts_is_remembered_up_to_a_bound(authority: Authority) -> None:
    for number in range(300):
        authority.leaf(f"h{number}.cdn.example")
    assert len(authority.store.certs) <= authority.store.STORE_CAP


def test_nobody_inspected_is_no_authority_for_everybody() -> None:
    with pytest.raises(AuthorityError, match="no host"):
        make_authority((), datetime.now(UTC))


def test_more_hosts_than_a_handshake_holds_are_refused_in_words() -> None:
    with pytest.raises(AuthorityError, match="too many hosts for one certificate: 2000"):
        make_authority([f"host-{number}.example" for number in range(2000)], datetime.now(UTC))


# Whom a certificate of ours convinces: its own host, one below a host of ours, and what lies outside.

OUTSIDE = {"another host": x509.DNSName("localhost"), "an address": x509.IPAddress(ip_address("127.0.0.1"))}


@dataclass(frozen=True, slots=True)
class Presented:
    """Files of a server that has a leaf of ours: its chain and key; and the root."""

    chain: Path
    key: Path
    root: Path


def presented(authority: Authority, leaf: CertStoreEntry, directory: Path) -> Presented:
    files = Presented(directory / "chain.pem", directory / "key.pem", directory / "root.pem")
    files.chain.write_bytes(leaf.cert.to_pem() + authority.issuer.public_bytes(Encoding.PEM))
    files.key.write_bytes(leaf.privatekey.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files.root.write_bytes(authority.root_pem)
    return files


def forged(authority: Authority, name: x509.GeneralName, *, common_name: bool) -> CertStoreEntry:
    """What a thief of the key could make."""
    return authority.store.get_cert(str(name.value) if common_name else None, [name])


@pytest.mark.parametrize("host", ["api.example", "cdn.example", "a.b.cdn.example"])
def test_openssl_takes_a_host_of_ours_strictly(authority: Authority, host: str, tmp_path: Path) -> None:
    """As Python >= 3.13 verifies: X509_V_FLAG_X509_STRICT."""
    assert openssl(presented(authority, authority.leaf(host), tmp_path), ["-verify_hostname", host]) == ""


@pytest.mark.parametrize("common_name", [True, False], ids=["with a common name", "without"])
@pytest.mark.parametrize("name", OUTSIDE.values(), ids=OUTSIDE)
def test_openssl_refuses_what_lies_outside(
    authority: Authority, name: x509.GeneralName, tmp_path: Path, *, common_name: bool
) -> None:
    said = openssl(presented(authority, forged(authority, name, common_name=common_name), tmp_path), [])
    assert "subtree violation" in said


def ran(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def openssl(files: Presented, options: Sequence[str]) -> str:
    """What openssl-verify(1) has against the chain."""
    trusting = ["-x509_strict", "-CAfile", str(files.root), "-untrusted", str(files.chain)]
    done = ran("openssl", "verify", *trusting, *options, files.chain)
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr


def test_python_takes_a_host_of_ours_and_refuses_another(authority: Authority, tmp_path: Path) -> None:
    assert handshake(presented(authority, authority.leaf("api.example"), tmp_path), "api.example") == ""
    outside = forged(authority, OUTSIDE["another host"], common_name=True)
    assert "permitted subtree violation" in handshake(presented(authority, outside, tmp_path), "localhost")


def handshake(files: Presented, host: str) -> str:
    """What a Python client says of a server, in memory."""
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(files.chain, files.key)
    theirs = ssl.create_default_context(cafile=files.root)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = theirs.wrap_bio(down, up, server_hostname=host)
    server = ours.wrap_bio(up, down, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
    return ""


_NODE = """
const tls = require('tls'), fs = require('fs');
const [chain, key, root, host] = process.argv.slice(1);
const server = tls.createServer({ cert: fs.readFileSync(chain), key: fs.readFileSync(key) }, s => s.end());
server.listen(0, '127.0.0.1', () => {
  const client = tls.connect({ port: server.address().port, host: '127.0.0.1', servername: host,
    ca: fs.readFileSync(root), checkServerIdentity: () => undefined });
  client.on('secureConnect', () => { console.log('taken'); process.exit(); });
  client.on('error', error => { console.log(error.message); process.exit(); });
});
"""

_JAVA = """
import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.*;
import java.util.*;
import javax.net.ssl.*;

public class Verify {
    public static void main(String[] files) throws Exception {
        CertificateFactory x509 = CertificateFactory.getInstance("X.509");
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        trusted.setCertificateEntry("root", x509.generateCertificate(new FileInputStream(files[0])));
        TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
        factory.init(trusted);
        X509TrustManager manager = (X509TrustManager) factory.getTrustManagers()[0];
        for (String file : Arrays.copyOfRange(files, 1, files.length)) {
            Collection<? extends Certificate> chain = x509.generateCertificates(new FileInputStream(file));
            try {
                manager.checkServerTrusted(chain.toArray(new X509Certificate[0]), "ECDHE_ECDSA");
                System.out.println("taken");
            } catch (CertificateException error) {
                System.out.println(error.getMessage());
            }
        }
    }
}
"""


@pytest.fixture
def chains(authority: Authority, tmp_path: Path) -> list[Presented]:
    """One of ours, then each that lies outside."""
    leaves = [authority.leaf("api.example"), *(forged(authority, name, common_name=False) for name in OUTSIDE.values())]
    files = []
    for number, leaf in enumerate(leaves):
        directory = tmp_path / str(number)
        directory.mkdir()
        files.append(presented(authority, leaf, directory))
    return files


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js here")
def test_node_takes_a_host_of_ours_and_refuses_what_lies_outside(chains: list[Presented]) -> None:
    said = [ran("node", "-e", _NODE, files.chain, files.key, files.root, "api.example").stdout for files in chains]
    assert [line.strip() for line in said] == ["taken", "permitted subtree violation", "excluded subtree violation"]


@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java here")
def test_java_takes_a_host_of_ours_and_refuses_what_lies_outside(chains: list[Presented], tmp_path: Path) -> None:
    """It doesn't look at constraints of what it trusts: the issuer's are what it obeys."""
    (tmp_path / "Verify.java").write_text(_JAVA)
    done = ran("java", tmp_path / "Verify.java", chains[0].root, *(files.chain for files in chains))
    refused = "PKIX path validation failed: java.security.cert.CertPathValidatorException: name constraints"
    assert done.stdout.splitlines() == ["taken", f"{refused} check failed", f"{refused} check failed"]
