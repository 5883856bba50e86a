"""How programs come to trust an authority of ours.

Law: what they read is planned by a pure function; `furnish` writes it into one directory of ours, and nowhere else.
Nobody's own file is changed: what programs find by a fixed path is shown to them in its place (`views`), by whoever
owns their mounts.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore

from proxy.authority import Authority

BUNDLE: Final = "ca-certificates.crt"
ROOT: Final = "root.crt"
JAVA: Final = "java.p12"
STORE: Final = "store"
# OpenSSL's and Go's, python-requests' and pip's, Node's, curl's, git's, the AWS SDKs', cargo's, Deno's.
_VARIABLES: Final = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO", "DENO_CERT",
)  # fmt: skip
# Few programs read these: set only where they are set already, and would hide the others.
_WHERE_NAMED: Final = (
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "HTTPLIB2_CA_CERTS", "NIX_SSL_CERT_FILE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "NPM_CONFIG_CAFILE", "npm_config_cafile", "BUNDLE_SSL_CA_CERT", "HEX_CACERTS_PATH",
)  # fmt: skip
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora and its kin
    "/etc/ssl/ca-bundle.pem",  # SUSE
)
_DIRECTORY: Final = "/etc/ssl/certs"  # where OpenSSL looks for a root by its hash


class TrustError(Exception):
    """This machine's own roots are not where they are known to be."""


@dataclass(frozen=True, slots=True)
class SystemStore:
    """This machine's roots: one PEM file of all of them, and the directory that has each by its hash. No links."""

    bundle: Path
    directory: Path | None

    def views(self, furnished: Path) -> Iterator[tuple[Path, Path]]:
        """What of a furnished directory is to be shown where, in this order."""
        if self.directory is not None:
            yield furnished / STORE, self.directory
        if self.directory is None or not self.bundle.is_relative_to(self.directory):
            yield furnished / BUNDLE, self.bundle


@dataclass(frozen=True, slots=True)
class Trust:
    """`files` by name, to lie in one directory, and `variables` for a program that sees them there."""

    files: Mapping[str, bytes]
    variables: Mapping[str, str]


def system_store() -> SystemStore:
    """Raises TrustError."""
    bundle = next((path for path in map(Path, _BUNDLES) if path.is_file()), None)
    if bundle is None:
        raise TrustError(f"no certificates of public authorities are at {', '.join(_BUNDLES)}")
    directory = Path(_DIRECTORY)
    return SystemStore(bundle.resolve(), directory.resolve() if directory.is_dir() else None)


def plan(
    root: bytes, roots: bytes, environ: Mapping[str, str], shown: Path, read: Callable[[str], bytes | None]
) -> Trust:
    """What to write, and what to say, so that a program with this environment trusts `root` besides what it trusts now.

    `root` and `roots` (the system's) are PEM. `shown` is where the program will see the files. `read` gives what a
    variable names, None where that can't be read: a bundle of the caller's own gets our root and none of the system's.
    """
    files = {BUNDLE: joined(roots, root)}
    made = {files[BUNDLE]: BUNDLE}
    variables = {}
    for name in (*_VARIABLES, *(name for name in _WHERE_NAMED if environ.get(name))):
        named = read(environ[name]) if environ.get(name) else None
        content = joined(roots if named is None else named, root)
        file = made.setdefault(content, f"{name}.pem")
        files[file] = content
        variables[name] = str(shown / file)
    return Trust(files, variables)


def joined(*bundles: bytes) -> bytes:
    """One PEM file of several, whether or not each ends in a line's end."""
    return b"".join(bundle if bundle.endswith(b"\n") else bundle + b"\n" for bundle in bundles)


def for_java(trust: Trust, environ: Mapping[str, str], shown: Path) -> Trust:
    """The same, and a truststore for Java, whose programs read no PEM. One that the caller names stays in force."""
    options = environ.get("JAVA_TOOL_OPTIONS", "")
    if "javax.net.ssl.trustStore=" in options:
        return trust
    ours = f"-Djavax.net.ssl.trustStore={shown / JAVA}"
    files = {**trust.files, JAVA: truststore(trust.files[BUNDLE])}
    return Trust(files, {**trust.variables, "JAVA_TOOL_OPTIONS": f"{options} {ours}".strip()})


def truststore(bundle: bytes) -> bytes:
    """A PEM bundle as PKCS #12, without a password: Java's own has none since JDK 18, and older ones read it."""
    entries = [PKCS12Certificate(one, str(number).encode()) for number, one in enumerate(_certificates(bundle))]
    return serialize_java_truststore(entries, NoEncryption())


def _certificates(bundle: bytes) -> Iterator[x509.Certificate]:
    """Those that can be read. Some stores hold old ones that are not quite right (a serial number of 0)."""
    end = b"-----END CERTIFICATE-----\n"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in bundle.split(end)[:-1]:
            try:
                yield x509.load_pem_x509_certificate(one + end)
            except ValueError:
                continue


def furnish(directory: Path, trust: Trust, store: SystemStore, authority: Authority) -> None:
    """Write the files, and a copy of the system's directory with ours among them, readable by all. What an earlier
    keeper wrote is written over, where programs look. Raises OSError."""
    directory.mkdir(mode=0o755, exist_ok=True)
    for name, content in {**trust.files, ROOT: authority.root_pem}.items():
        _write(directory / name, content)
    if store.directory is None:
        return
    copy = directory / STORE
    if not copy.exists():
        shutil.copytree(store.directory, copy, symlinks=True)
    _write(copy / f"{authority.root_hash}.0", authority.root_pem)
    if store.bundle.parent == store.directory:
        _write(copy / store.bundle.name, trust.files[BUNDLE])
    if (copy / "java" / "cacerts").exists():  # Debian's package ca-certificates-java
        _write(copy / "java" / "cacerts", truststore(trust.files[BUNDLE]))


def _write(path: Path, content: bytes) -> None:
    """A file of its own in the place of a link, which leads to somebody else's."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.chmod(0o644)
    new.replace(path)
