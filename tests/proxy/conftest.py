"""One bed for all tests of a module: a proxy between real clients and real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dnsfw.playground.certificates import make_certificates
from tests.proxy.bed import MUTUAL, NGINX, OLD, PYTHON, Bed, built, certificates
from tests.proxy.servers import Origin, nginx, python_server

INSPECTED = (
    "api.example",
    "py.example",
    "wrong.example",
    "misnamed.example",
    "lax.example",
    "mutual.example",
    "old.example",
    "strict.example",
)
HOSTS = {
    **dict.fromkeys((*INSPECTED, "plain.example", "kept.example", "other.example"), NGINX),
    "py.example": PYTHON,
    "old.example": OLD,
    "strict.example": MUTUAL,
}
POLICY = """\
* https://api.example/*
* http://api.example/*
!https://api.example/secret
!https://api.example/shut/*
!http://api.example/secret
GET https://py.example/*
GET|POST|PUT https://py.example/sink
POST https://py.example/trailers
GET http://py.example/*
https://wrong.example/*
https://misnamed.example/*
https://lax.example/* insecure
https://mutual.example/*
https://old.example/*
https://strict.example/*
plain.example
kept.example passthrough
https://kept.example/*
"""


@pytest.fixture(scope="package")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """With nginx in it."""
    directory = tmp_path_factory.mktemp("bed")
    vouched_for = HOSTS.keys() - {"wrong.example", "lax.example", "misnamed.example"}
    certificates(directory, {name: HOSTS[name] for name in sorted(vouched_for)})
    (directory / "wrong").mkdir()
    wrong = make_certificates(directory / "wrong", ["DNS:wrong.example", "DNS:lax.example"])
    wrong.chain.rename(directory / "wrong.pem")
    wrong.key.rename(directory / "wrong.key")
    for folder in ("files", "trailer"):
        (directory / "www" / folder).mkdir(parents=True)
        (directory / "www" / folder / "a.txt").write_text("a file of text\n" * 20)
    with built(directory, POLICY, HOSTS, INSPECTED) as made, nginx(made):
        yield made


@pytest.fixture(scope="package")
def origin(bed: Bed) -> Iterator[Origin]:
    """The Python server in the bed."""
    with python_server(bed) as made:
        yield made
