"""Path confusion: what a request's path is to us, to nginx and to Python's server is the same, or it is denied."""

from __future__ import annotations

import posixpath
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest

from policy import paths
from tests.proxy.bed import NGINX, Bed

FILE = Path(__file__).with_name("targets.txt")


def _cases() -> Iterator[tuple[bytes, bytes | None]]:
    """A target, and the path that it stands for, None where it is to be denied."""
    for line in FILE.read_text(encoding="ascii").splitlines():
        if line and not line.startswith("# "):
            target, path = (part.encode().decode("unicode_escape").encode("latin-1") for part in (line[:27], line[28:]))
            yield target.rstrip(b" "), None if path == b"-" else path


CASES = list(_cases())
ALLOWED = [(target, path) for target, path in CASES if path is not None]
DENIED = [target for target, path in CASES if path is None]


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 100
    assert len(DENIED) >= 60


@pytest.mark.parametrize(("target", "path"), ALLOWED, ids=repr)
def test_our_view_and_python_s(target: bytes, path: bytes) -> None:
    raw = target.partition(b"?")[0].decode("ascii")
    raw = (urlsplit(raw).path or "/") if "://" in raw else raw
    assert unquote_to_bytes(paths.canonical(raw)) == path
    assert unquote_to_bytes(raw) == path
    assert posixpath.normpath(path) == (path.rstrip(b"/") or b"/")  # as SimpleHTTPRequestHandler.translate_path does


@pytest.mark.kernel("root", "netns", "nft", "nginx")
def test_what_is_let_through_nginx_understands_as_we_do(bed: Bed) -> None:
    with bed.connect(NGINX, 80) as client:
        seen = {target: _asked(client, target) for target, _ in ALLOWED}
    assert seen == {target: b"200 api.example|%s" % path for target, path in ALLOWED}


@pytest.mark.kernel("root", "netns", "nft", "nginx")
@pytest.mark.parametrize("version", [4, 6])
def test_what_could_be_understood_otherwise_gets_nowhere(bed: Bed, version: int) -> None:
    since = len(bed.entries)
    for target in DENIED:
        with bed.connect(NGINX, 80, version) as client:
            assert _asked(client, target)[:3] in {b"403", b"400"}, target
    assert [entry.decision.reason for entry in bed.entries[since:]] == ["malformed"] * len(DENIED)


def _asked(client: socket.socket, target: bytes) -> bytes:
    """The status and, of a short answer, the body."""
    client.sendall(b"GET %s HTTP/1.1\r\nHost: api.example\r\n\r\n" % target)
    head, _, body = _read_until(client, b"\r\n\r\n").partition(b"\r\n\r\n")
    status = head.split(b" ")[1]
    if status != b"200":
        return status
    while not body.endswith(b"\n"):
        body += client.recv(4096)
    return status + b" " + body.rstrip(b"\n")


def _read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data and (more := client.recv(65536)):
        data += more
    return data
