"""Bodies pass as they come: the proxy keeps next to nothing of them, and whoever is slow slows down the other side."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived

from tests.proxy.bed import NGINX, PATIENCE, PYTHON, Bed, built, certificates
from tests.proxy.conftest import HOSTS, INSPECTED, POLICY
from tests.proxy.servers import Origin
from tests.proxy.test_proxy_http import VERSIONS, answered, get, talk

pytestmark = pytest.mark.kernel("root", "netns", "nft", "nginx")

MB = 1 << 20
LARGE = 64 * MB
MOST = 32 * MB  # that the proxy may grow by; two of them are in a body


def memory(bed: Bed) -> int:
    """The proxy's, resident, in octets."""
    assert bed.proxy is not None
    fields = Path(f"/proc/{bed.proxy.pid}/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) << 10


@contextmanager
def hardly_grown(bed: Bed) -> Iterator[None]:
    before = memory(bed)
    yield
    assert memory(bed) - before < MOST


@pytest.fixture(scope="module")
def large(bed: Bed) -> Path:
    """A file that nginx serves as /files/large."""
    file = bed.directory / "www/files/large"
    with file.open("wb") as made:
        made.truncate(LARGE)
    return file


@VERSIONS
def test_a_large_download_is_not_kept(bed: Bed, large: Path, http: str) -> None:
    with hardly_grown(bed):
        done = bed.curl(http, "-o", "/dev/null", "-w", "%{size_download}", "https://api.example/files/large")
    assert int(done.stdout) == LARGE


@pytest.mark.parametrize(("http", "host"), [("--http1.1", "py.example"), ("--http2", "api.example")])
def test_a_large_upload_is_not_kept(bed: Bed, origin: Origin, large: Path, http: str, host: str) -> None:
    with hardly_grown(bed):
        assert bed.curl(http, "-T", str(large), f"https://{host}/sink").stdout == b"%d\n" % LARGE


@VERSIONS
def test_a_large_refused_upload_is_not_kept(bed: Bed, large: Path, http: str) -> None:
    with hardly_grown(bed):
        assert bed.status(http, "-H", "Expect:", "-T", str(large), "https://api.example/secret") == "403"


def test_a_client_that_doesn_t_read_holds_up_the_server(bed: Bed, origin: Origin) -> None:
    with hardly_grown(bed), talk(bed, PYTHON, "py.example") as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.sendall(get(f"/bytes/{1 << 40}"))
        _until_still(bed)


def test_an_http2_stream_that_isn_t_read_holds_up_its_server_and_no_other_stream(bed: Bed, large: Path) -> None:
    with hardly_grown(bed), talk(bed, NGINX, "api.example", "h2") as client:
        http = H2Connection(H2Configuration(header_encoding=None))
        http.initiate_connection()
        http.increment_flow_control_window(1 << 30)  # the connection's: each stream's stays at 64 KiB
        for stream, path in ((1, "/files/large"), (3, "/files/large"), (5, "/last")):
            fields = [(":method", "GET"), (":scheme", "https"), (":authority", "api.example"), (":path", path)]
            http.send_headers(stream, fields, end_stream=True)
        body = b""
        while body != b"api.example|/last\n":
            client.sendall(http.data_to_send())
            for event in http.receive_data(client.recv(65536)):
                if isinstance(event, DataReceived) and event.stream_id == 5:
                    body += event.data
        _until_still(bed)


def _until_still(bed: Bed) -> None:
    """Wait until the proxy neither reads nor writes any more, for a tenth of a second."""
    assert bed.proxy is not None
    until, spent, still = time.monotonic() + PATIENCE, -1, 0
    while still < 2:
        assert time.monotonic() < until, "it goes on and on"
        time.sleep(0.1)
        now = int(Path(f"/proc/{bed.proxy.pid}/stat").read_text().rpartition(")")[2].split()[11])  # ticks of its own
        still = still + 1 if now <= spent + 1 else 0
        spent = now


# Who takes too long.


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A bed whose proxy has a second's patience."""
    directory = tmp_path_factory.mktemp("hasty")
    certificates(directory, HOSTS)
    with built(directory, POLICY, HOSTS, INSPECTED, patience=1) as made:
        yield made


def ended(client: socket.socket) -> bytes:
    """What is still said until the other side hangs up."""
    said = b""
    with suppress(ConnectionResetError, ssl.SSLEOFError):
        while data := client.recv(4096):
            said += data
    return said


def test_who_says_no_more_is_hung_up_on(hasty: Bed) -> None:
    """Before the first request, within it, between two, and with nothing but a handshake done."""
    with ExitStack() as stack:
        begun = [stack.enter_context(hasty.connect(NGINX, 80)) for _ in range(4)]
        for client, said in zip(begun, (b"", b"\x16\x03\x01", b"GET / HT", get("/secret", "api.example")), strict=True):
            client.sendall(said)
        begun.append(stack.enter_context(talk(hasty, NGINX, "api.example")))
        assert [ended(client)[:12] for client in begun] == [b"", b"", b"", b"HTTP/1.1 403", b""]


def test_a_head_that_comes_in_drops_is_not_waited_for(hasty: Bed) -> None:
    with hasty.connect(NGINX, 80) as client:
        answered(client, get("/secret", "api.example"))
        began = time.monotonic()
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012 - the drops are the test
            while time.monotonic() < began + PATIENCE:
                client.sendall(b"a")
                time.sleep(0.1)
        assert time.monotonic() < began + 5


def test_a_head_without_end_is_cut_off(hasty: Bed) -> None:
    since = len(hasty.entries)
    with hasty.connect(NGINX, 80) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: api.example\r\n")
        line = b"X: " + b"x" * 1000 + b"\r\n"
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012
            for _ in range(200):
                client.sendall(line * 100)
    assert "65536 octets" in (hasty.wait_for_denial(since).fault or "")


def test_clients_that_go_away_at_any_moment_leave_nothing_behind(bed: Bed, origin: Origin) -> None:
    """And the proxy goes on: nothing is told of a connection that is closed."""
    assert bed.proxy is not None
    with hardly_grown(bed):
        for number in range(60):
            client = talk(bed, PYTHON, "py.example") if number % 2 else bed.connect(PYTHON, 80)
            client.sendall(get(("/bytes/1000000", "/hang-up", "/events")[number % 3]))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            client.close()
        assert bed.status("https://py.example/x") == "200"
    assert bed.proxy.poll() is None
