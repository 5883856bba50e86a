"""TLS through the proxy: who is looked into, who is left alone, and whom the proxy itself trusts."""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
from contextlib import suppress

import pytest

from policy import Flow, Reason
from proxy.tls import refuses_certificate
from tests.proxy.bed import NGINX, PATIENCE, Bed
from tests.proxy.servers import Origin
from tests.proxy.test_proxy_http import VERSIONS

pytestmark = pytest.mark.kernel("root", "netns", "nft", "nginx")


def shown(bed: Bed, name: str | None, version: int = 4) -> str:
    """The fingerprint of the certificate that a client is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(bed.connect(NGINX, 443, version), server_hostname=name) as client:
        return hashlib.sha256(client.getpeercert(binary_form=True) or b"").hexdigest()


def real(bed: Bed) -> str:
    """The fingerprint of the server's own."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert((bed.directory / "site.pem").read_text())).hexdigest()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", ["plain.example", "kept.example"])
def test_who_has_no_url_rule_or_is_kept_from_them_is_left_alone(bed: Bed, name: str, version: int) -> None:
    assert shown(bed, name, version) == real(bed)


@pytest.mark.parametrize("version", [4, 6])
def test_who_has_a_url_rule_is_looked_into(bed: Bed, version: int) -> None:
    assert shown(bed, "api.example", version) != real(bed)


@VERSIONS
def test_a_tunnel_s_octets_are_the_client_s_and_the_server_s(bed: Bed, http: str) -> None:
    done = bed.run(
        "curl", "-sS", http, "--cacert", str(bed.directory / "ca.pem"), *bed.resolve(), "https://plain.example/a"
    )
    assert done.stdout == b"plain.example|/a\n"


@pytest.mark.parametrize("name", ["other.example", "elsewhere.example", "sub.api.example", None])
def test_a_name_that_isn_t_bound_and_allowed_gets_an_alert_and_nothing_else(bed: Bed, name: str | None) -> None:
    since = len(bed.entries)
    with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
        shown(bed, name)
    (entry,) = bed.entries[since:]
    assert isinstance(entry.subject, Flow)


def test_the_name_s_case_is_no_way_around(bed: Bed) -> None:
    assert shown(bed, "PLAIN.example") == real(bed)
    assert shown(bed, "API.example") != real(bed)


def test_a_client_hello_in_pieces_is_read_as_one(bed: Bed) -> None:
    context = ssl.create_default_context(cafile=bed.root)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="api.example")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    with bed.connect(NGINX, 443) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = outgoing.read()
        for at in range(0, len(hello), 100):
            client.sendall(hello[at : at + 100])
        while True:
            incoming.write(client.recv(65536))
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                continue
            break
    assert tls.version() == "TLSv1.3"


def test_plain_http_on_the_port_of_https_is_judged_as_such(bed: Bed) -> None:
    assert bed.status("http://api.example:443/") == "403"


# Whom the proxy trusts.


def test_a_server_that_nobody_vouches_for_is_not_talked_to(bed: Bed) -> None:
    since = len(bed.entries)
    done = bed.curl("-i", "https://wrong.example/")
    assert b"502" in done.stdout.splitlines()[0]
    assert b"unable to get local issuer certificate" in done.stdout
    assert bed.wait_for_denial(since).decision.reason is Reason.UNTRUSTED


def test_a_server_that_is_vouched_for_under_other_names_is_not_talked_to(bed: Bed) -> None:
    since = len(bed.entries)
    done = bed.curl("-w", "%{http_code}", "https://misnamed.example/")
    assert b"hostname mismatch" in done.stdout.lower()
    assert done.stdout.endswith(b"502")
    assert bed.wait_for_denial(since).decision.reason is Reason.UNTRUSTED


def test_insecure_is_for_the_host_whose_rule_says_so(bed: Bed) -> None:
    assert bed.curl("https://lax.example/").stdout == b"wrong\n"


def test_an_old_version_of_tls_is_not_spoken(bed: Bed) -> None:
    done = bed.curl("-w", "%{http_code}", "https://old.example/")
    assert b"no version of TLS from 1.2 on" in done.stdout
    assert done.stdout.endswith(b"502")


def test_clients_must_speak_a_modern_version_too(bed: Bed) -> None:
    done = bed.curl("--tls-max", "1.1", "--ciphers", "ALL@SECLEVEL=0", "https://api.example/")
    assert done.returncode == 35  # no handshake


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_modern_versions_towards_clients(bed: Bed, tls: str) -> None:
    assert bed.status(f"--tlsv{tls}", "--tls-max", tls, "https://api.example/") == "200"


def test_a_server_that_wants_a_client_s_certificate_is_told_of(bed: Bed) -> None:
    since = len(bed.entries)
    assert b"No required SSL certificate was sent" in bed.curl("https://mutual.example/").stdout
    assert bed.wait_for_denial(since).decision.reason is Reason.CLIENT_CERTIFICATE


def test_one_that_hangs_up_for_want_of_it_is_told_of_in_words(bed: Bed, origin: Origin) -> None:
    since = len(bed.entries)
    done = bed.curl("-w", "%{http_code}", "https://strict.example/")
    assert done.stdout.endswith(b"502")
    assert b"strict.example passthrough" in done.stdout
    assert bed.wait_for_denial(since).decision.reason is Reason.CLIENT_CERTIFICATE


def test_a_client_that_refuses_our_certificate_is_told_of(bed: Bed) -> None:
    since = len(bed.entries)
    wrong = str(bed.directory / "ca.pem")
    done = bed.run("curl", "-sS", "--cacert", wrong, *bed.resolve(), "https://api.example/")
    assert done.returncode == 60
    entry = bed.wait_for_denial(since)
    assert (entry.decision.reason, entry.names) == (Reason.PINNED, ("api.example",))
    assert "alert" in (entry.fault or "")


@pytest.mark.parametrize(
    ("problem", "refused"),
    [
        ("tlsv1 alert unknown ca", True),
        ("sslv3 alert bad certificate", True),
        ("ssl/tls alert bad certificate", True),
        ("OpenSSL Error([('SSL routines', '', 'sslv3 alert certificate unknown')])", True),
        ("OpenSSL Error([('SSL routines', '', 'ssl/tls alert unsupported certificate')])", True),
        ("OpenSSL Error([('SSL routines', '', 'sslv3 alert handshake failure')])", False),
        ("OpenSSL Error([('SSL routines', '', 'tlsv1 alert protocol version')])", False),
        ("OpenSSL Error([('SSL routines', '', 'no shared cipher')])", False),
        ("", False),
    ],
)
def test_an_alert_about_a_certificate_is_told_from_others(problem: str, *, refused: bool) -> None:
    assert refuses_certificate(problem) == refused


def test_openssl_s_client_is_recognised_too(bed: Bed) -> None:
    since = len(bed.entries)
    with bed.inside.entered():
        subprocess.run(
            [
                "openssl",
                "s_client",
                "-connect",
                f"{NGINX[4]}:443",
                "-servername",
                "api.example",
                "-verify_return_error",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert bed.wait_for_denial(since).decision.reason is Reason.PINNED
