"""Certificates for the playground's sites.

Law: the only file that starts openssl(1). It is a Debian and Ubuntu package that ca-certificates needs anyway; a
Python library for this would be one more dependency of the product, for its demo alone. Keys live in the playground's
own directory and go with it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dnsfw.errors import SetupError
from dnsfw.playground import atlas


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files: the authority that clients trust; the sites' chain and key."""

    authority: Path
    chain: Path
    key: Path


def make_site_certificates(directory: Path) -> Certificates:
    """For every name and address that somebody of the atlas answers for. Raises SetupError."""
    names = [atlas.DOH_NAME, f"*.{atlas.WILDCARD_ZONE}"]
    for site in (atlas.ALLOWED_NAME, atlas.EVIL_ZONE):
        names += [site, f"*.{site}"]
    addresses = (address for place in (*atlas.GOOD_PLACES, *atlas.EVIL_PLACES) for address in place.addresses)
    return make_certificates(directory, [f"DNS:{name}" for name in names] + [f"IP:{one}" for one in addresses])


def make_certificates(directory: Path, names: Sequence[str]) -> Certificates:
    """An authority and one certificate for all `names` (DNS:… or IP:…), good for two days. Raises SetupError."""
    files = Certificates(directory / "ca.pem", directory / "site.pem", directory / "site.key")
    ca_key = directory / "ca.key"
    authority = ["-subj", "/CN=dnsfw playground authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    site = ["-subj", "/CN=dnsfw playground site", "-addext", f"subjectAltName={','.join(names)}"]
    signed = ["-CA", str(files.authority), "-CAkey", str(ca_key), "-addext", "basicConstraints=critical,CA:false"]
    _self_signed(files.authority, ca_key, authority)
    _self_signed(files.chain, files.key, [*site, *signed])
    ca_key.unlink()
    return files


def _self_signed(certificate: Path, key: Path, options: Sequence[str]) -> None:
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", str(key), "-out", str(certificate), *options]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise SetupError("The program openssl is missing.", "Install the package openssl.") from None
    except subprocess.CalledProcessError as error:
        raise SetupError(f"openssl could not make the playground's certificates: {error.stderr.strip()}") from error
