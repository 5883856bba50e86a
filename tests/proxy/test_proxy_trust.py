"""What programs read, with an authority of ours in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy import trust
from proxy.authority import Authority, make_authority
from proxy.trust import BUNDLE, JAVA, STORE, SystemStore, Trust

SHOWN = Path("/run/dnsfw")
ROOT, ROOTS, CORPORATE = b"-- ours --\n", b"-- the system's --\n", b"-- a company's --"
NAMED = {"/corp.pem": CORPORATE, "/also-corp.pem": CORPORATE, "/system.pem": ROOTS}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority(["api.example"], datetime.now(UTC))


def planned(environ: dict[str, str]) -> Trust:
    return trust.plan(ROOT, ROOTS, environ, SHOWN, NAMED.get)


@pytest.mark.parametrize(
    "name",
    ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE",
     "PIP_CERT", "CARGO_HTTP_CAINFO", "DENO_CERT"],
)  # fmt: skip
def test_a_variable_that_programs_read_names_the_system_s_roots_and_ours(name: str) -> None:
    said = planned({})
    assert said.variables[name] == "/run/dnsfw/ca-certificates.crt"
    assert said.files == {BUNDLE: ROOTS + ROOT}


def test_a_bundle_that_the_caller_names_is_kept_and_gets_ours_but_no_more() -> None:
    """Whoever trusts a company's authority alone goes on doing so."""
    said = planned({"REQUESTS_CA_BUNDLE": "/corp.pem"})
    assert said.variables["REQUESTS_CA_BUNDLE"] == "/run/dnsfw/REQUESTS_CA_BUNDLE.pem"
    assert said.files["REQUESTS_CA_BUNDLE.pem"] == CORPORATE + b"\n" + ROOT
    assert said.variables["SSL_CERT_FILE"] == "/run/dnsfw/ca-certificates.crt"


@pytest.mark.parametrize("named", ["/system.pem", "/not/there.pem", ""], ids=["the system's", "not there", "empty"])
def test_what_names_nothing_of_its_own_gets_the_system_s(named: str) -> None:
    assert planned({"SSL_CERT_FILE": named}).variables == planned({}).variables


def test_one_bundle_under_several_names_is_one_file() -> None:
    said = planned({"CURL_CA_BUNDLE": "/corp.pem", "GIT_SSL_CAINFO": "/also-corp.pem"})
    assert len(said.files) == 2
    assert said.variables["CURL_CA_BUNDLE"] == said.variables["GIT_SSL_CAINFO"]


def test_what_few_programs_read_is_set_where_it_was_set() -> None:
    name = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
    assert name not in planned({}).variables
    assert planned({name: "/corp.pem"}).variables[name] == f"/run/dnsfw/{name}.pem"


JAVA_READS = """
import java.io.*; import java.security.*; import java.util.*;

public class Roots {
    public static void main(String[] files) throws Exception {
        KeyStore store = KeyStore.getInstance("JKS");
        store.load(new FileInputStream(files[0]), null);
        System.out.println(store.size());
    }
}
"""


def test_java_s_options_are_added_to_the_caller_s(authority: Authority) -> None:
    said = trust.for_java(Trust({BUNDLE: authority.root_pem}, {}), {"JAVA_TOOL_OPTIONS": "-Xmx64m"}, SHOWN)
    assert said.variables["JAVA_TOOL_OPTIONS"] == "-Xmx64m -Djavax.net.ssl.trustStore=/run/dnsfw/java.p12"
    assert said.files[JAVA]


def test_a_truststore_that_the_caller_names_stays_in_force(authority: Authority) -> None:
    theirs = {"JAVA_TOOL_OPTIONS": "-Djavax.net.ssl.trustStore=/corp.p12"}
    said = Trust({BUNDLE: authority.root_pem}, {})
    assert trust.for_java(said, theirs, SHOWN) == said


@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java here")
def test_java_reads_every_root_of_the_truststore(authority: Authority, tmp_path: Path) -> None:
    other = make_authority(["other.example"], datetime.now(UTC))
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (tmp_path / "made.p12").write_bytes(trust.truststore(trust.joined(authority.root_pem, broken, other.root_pem)))
    (tmp_path / "Roots.java").write_text(JAVA_READS)
    command = ["java", str(tmp_path / "Roots.java"), str(tmp_path / "made.p12")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2\n"


@pytest.fixture
def system(tmp_path: Path) -> SystemStore:
    """A store as Debian lays it out: links from hashes to names, and from those to files elsewhere."""
    directory = tmp_path / "certs"
    (directory / "java").mkdir(parents=True)
    (tmp_path / "one.crt").write_bytes(b"-- one --\n")
    (directory / "one.pem").symlink_to(tmp_path / "one.crt")
    (directory / "12345678.0").symlink_to("one.pem")
    (directory / "ca-certificates.crt").write_bytes(ROOTS)
    (directory / "java" / "cacerts").write_bytes(b"JKS")
    return SystemStore(directory / "ca-certificates.crt", directory)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_system_s_directory_is_copied_with_ours_in_it_and_itself_left_alone(
    system: SystemStore, authority: Authority, tmp_path: Path
) -> None:
    assert system.directory is not None
    before = contents(system.directory)
    said = trust.plan(authority.root_pem, ROOTS, {}, SHOWN, NAMED.get)
    furnished = tmp_path / "trust"
    trust.furnish(furnished, said, system, authority)
    copy = contents(furnished / STORE)
    assert copy.pop("java/cacerts") != before["java/cacerts"]
    ours = {f"{authority.root_hash}.0": authority.root_pem, "ca-certificates.crt": ROOTS + authority.root_pem}
    assert copy == {"one.pem": b"-- one --\n", "12345678.0": b"-- one --\n"} | ours
    assert contents(system.directory) == before
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in furnished.rglob("*"))


def test_openssl_finds_our_root_by_its_hash(system: SystemStore, authority: Authority, tmp_path: Path) -> None:
    said = trust.plan(authority.root_pem, ROOTS, {}, SHOWN, NAMED.get)
    trust.furnish(tmp_path / "trust", said, system, authority)
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(authority.leaf("api.example").cert.to_pem())
    issuer = tmp_path / "issuer.pem"
    issuer.write_bytes(authority.store.default_ca.to_pem())
    command = ["openssl", "verify", "-CApath", f"{tmp_path}/trust/{STORE}", "-untrusted", str(issuer), str(leaf)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SSL_")}
    assert subprocess.run(command, env=clean, capture_output=True, text=True, check=False).stderr == ""


def test_a_bundle_outside_the_directory_is_shown_by_itself() -> None:
    store = SystemStore(Path("/etc/pki/bundle.crt"), Path("/etc/ssl/certs"))
    assert dict(store.views(SHOWN)) == {
        SHOWN / STORE: Path("/etc/ssl/certs"),
        SHOWN / BUNDLE: Path("/etc/pki/bundle.crt"),
    }
    assert list(SystemStore(Path("/etc/ssl/certs/x.crt"), Path("/etc/ssl/certs")).views(SHOWN)) == [
        (SHOWN / STORE, Path("/etc/ssl/certs"))
    ]


def test_this_machine_s_store_is_found() -> None:
    store = trust.system_store()
    assert b"BEGIN CERTIFICATE" in store.bundle.read_bytes()
