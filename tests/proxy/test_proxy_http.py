"""HTTP through the proxy, with real servers behind it: what passes, what is refused, and in what words."""

from __future__ import annotations

import json
import re
import socket
import ssl
from pathlib import Path

import pytest

from policy import Action, Request
from tests.proxy.bed import NGINX, PYTHON, Bed
from tests.proxy.servers import Origin

pytestmark = pytest.mark.kernel("root", "netns", "nft", "nginx")

WEBSOCKET = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
VERSIONS = pytest.mark.parametrize("http", ["--http1.1", "--http2"])


def talk(bed: Bed, at: dict[int, str], name: str, alpn: str = "http/1.1") -> ssl.SSLSocket:
    """A TLS connection to `name` by way of the proxy."""
    context = ssl.create_default_context(cafile=bed.root)
    context.set_alpn_protocols([alpn])
    return context.wrap_socket(bed.connect(at, 443), server_hostname=name)


def answered(client: socket.socket, request: bytes) -> tuple[bytes, bytes]:
    """The status line and the body of an answer that says its length."""
    client.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        if not more:
            return data, b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    size = int(fields.get(b"content-length", b"0"))
    while len(body) < size:
        body += client.recv(65536)
    return head.split(b"\r\n")[0], body


def get(path: str, host: str = "py.example", *more: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *more, "", ""]).encode()


# What passes.


@VERSIONS
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_both_versions_of_both(bed: Bed, http: str, version: int, scheme: str) -> None:
    done = bed.curl(http, f"{scheme}://api.example/a/b?c", version=version)
    assert done.stdout == b"api.example|/a/b\n", done.stderr


def test_the_server_s_protocol_is_the_client_s(bed: Bed, origin: Origin) -> None:
    """nginx speaks HTTP/2, the Python server doesn't, and a client that would hears so."""
    told = [bed.curl("-o", "/dev/null", "-w", "%{http_version}", f"https://{name}.example/") for name in ("api", "py")]
    assert [done.stdout for done in told] == [b"2", b"1.1"]


def test_the_request_reaches_the_server_as_it_was_sent(bed: Bed, origin: Origin) -> None:
    request = get("/a%20b?q=/../x&y", "py.example", "X-One: 1", "x-two:  2", "X-One: 3")
    with talk(bed, PYTHON, "py.example") as client:
        _, seen = answered(client, request)
    assert seen == request.replace(b":  ", b": ")


def test_interim_responses_are_not_the_answer(bed: Bed, origin: Origin) -> None:
    assert bed.curl("--http1.1", "https://py.example/hints").stdout == b"after the hints\n"


def test_server_sent_events_come_as_they_are_sent(bed: Bed, origin: Origin) -> None:
    origin.resume.clear()
    with talk(bed, PYTHON, "py.example") as client:
        client.sendall(get("/events"))
        seen = b""
        while b"data: 1" not in seen:
            seen += client.recv(4096)
        assert b"data: 2" not in seen
        origin.resume.set()
        while b"data: 2" not in seen:
            seen += client.recv(4096)


def test_a_websocket_s_octets_pass_both_ways(bed: Bed, origin: Origin) -> None:
    with talk(bed, PYTHON, "py.example") as client:
        status, _ = answered(client, get("/socket", "py.example", *WEBSOCKET))
        assert status == b"HTTP/1.1 101 Switching Protocols"
        for word in (b"one", b"two"):
            client.sendall(word)
            assert client.recv(100) == word.upper()


def test_a_websocket_wants_a_rule_like_any_request(bed: Bed) -> None:
    with talk(bed, NGINX, "api.example") as client:
        status, body = answered(client, get("/secret", "api.example", *WEBSOCKET))
        assert b"403" in status
        assert b"dnsfw: denied: GET https://api.example/secret" in body


def test_an_upgrade_to_http2_stays_with_what_can_be_judged(bed: Bed, origin: Origin) -> None:
    upgrade = ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk")
    with talk(bed, PYTHON, "py.example") as client:
        status, seen = answered(client, get("/x", "py.example", *upgrade))
    assert status == b"HTTP/1.1 200 OK"
    assert b"pgrade" not in seen


def test_a_server_can_t_leave_http_by_itself(bed: Bed, origin: Origin) -> None:
    with talk(bed, PYTHON, "py.example") as client:
        status, _ = answered(client, get("/other-protocol"))
        assert b"101" not in status


def test_trailers_pass_both_ways_but_those_that_would_change_the_request(bed: Bed, origin: Origin) -> None:
    body = b"3\r\nabc\r\n0\r\nX-Sum: 6\r\nHost: api.example\r\nContent-Length: 7\r\nX-HTTP-Method: PUT\r\n\r\n"
    with talk(bed, PYTHON, "py.example") as client:
        request = b"POST /trailers HTTP/1.1\r\nHost: py.example\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        client.sendall(request)
        seen = b""
        while not seen.endswith(b"\r\n\r\n") or b"0\r\n" not in seen:
            seen += client.recv(4096)
        assert seen.lower().endswith(b"3\r\nabc\r\n0\r\nx-echo: x-sum: 6\r\n\r\n")
        assert answered(client, get("/x"))[0] == b"HTTP/1.1 200 OK"


_TRAILERS = """
const [root, ip] = process.argv.slice(1);
const lookup = (host, options, done) => done(null, options.all ? [{ address: ip, family: 4 }] : ip, 4);
const session = require('http2').connect('https://api.example', { ca: require('fs').readFileSync(root), lookup });
const stream = session.request({ ':path': '/trailer/a.txt', te: 'trailers' });
stream.on('trailers', fields => console.log(fields['x-sum']));
stream.on('end', () => session.close());
stream.resume();
"""


def test_http2_trailers_pass(bed: Bed) -> None:
    assert bed.run("node", "-e", _TRAILERS, str(bed.root), NGINX[4]).stdout == b"42\n"


@VERSIONS
def test_who_waits_for_100_continue_gets_it(bed: Bed, origin: Origin, http: str) -> None:
    done = bed.curl(http, "-H", "Expect: 100-continue", "-d", "x" * 5000, "https://py.example/sink")
    assert done.stdout == b"5000\n"


# What is refused.


@VERSIONS
def test_a_refusal_says_what_and_why_and_the_line(bed: Bed, http: str) -> None:
    done = bed.curl(http, "-i", "https://api.example/secret?token=x")
    head, _, body = done.stdout.decode().replace("\r\n", "\n").partition("\n\n")
    assert head.split()[1] == "403"
    assert body.splitlines() == [
        "dnsfw: denied: GET https://api.example/secret",
        "    a deny rule names it: !https://api.example/secret (p:3)",
    ]
    assert "proxy-status: dnsfw; error=http_request_denied" in head.lower()


def test_a_refusal_is_json_for_who_accepts_that(bed: Bed) -> None:
    told = json.loads(bed.curl("-H", "Accept: application/json", "-X", "PUT", "https://py.example/x").stdout)
    assert told["what"] == "PUT https://py.example/x"
    assert told["line"] == "PUT https://py.example/x"
    assert (told["reason"], told["denied_by"]) == ("method", "dnsfw")


@VERSIONS
def test_the_connection_goes_on_after_a_refusal(bed: Bed, http: str) -> None:
    """With a body behind it too."""
    url = "https://api.example"
    first = [f"{url}/secret", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n"]
    second = ["--next", "-d", "x" * 100_000, "-H", "Expect:", *first]
    third = ["--next", f"{url}/ok", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n", "-sS"]
    common = ["--cacert", str(bed.root), *bed.resolve()]
    done = bed.run("curl", "-sS", http, *common, *first, *second, *common, http, *third, *common, http)
    assert done.stdout == b"403 1\n403 0\n200 0\n", done.stderr


@VERSIONS
def test_who_waits_to_send_a_body_is_refused_before(bed: Bed, http: str) -> None:
    """A GB is never sent."""
    sent = ["-H", "Expect: 100-continue", "--expect100-timeout", "20", "-T", "/dev/zero", "-m", "5"]
    done = bed.curl(http, *sent, "-w", "%{http_code} %{size_upload}", "-o", "/dev/null", "https://py.example/x")
    status, size = done.stdout.split()
    assert status == b"403"
    assert int(size) < 1 << 20


def test_a_redirect_is_a_new_request(bed: Bed) -> None:
    done = bed.curl("-L", "-o", "/dev/null", "-w", "%{http_code} %{num_redirects}", "https://api.example/moved")
    assert done.stdout == b"403 1"


def test_the_query_is_in_no_record(bed: Bed) -> None:
    since = len(bed.entries)
    bed.curl("-H", "X-Secret: hush", "https://api.example/a?password=hush", "https://api.example/secret?password=hush")
    assert len(bed.entries) == since + 2
    assert "hush" not in repr(bed.entries[since:])


@pytest.mark.parametrize(
    "request_",
    [
        b"CONNECT py.example:443 HTTP/1.1\r\nHost: py.example\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
        get("/", "api.example"),
        get("/", "api.example:443"),
        get("/", "py.example:8443"),
        get("/", "user@py.example"),
        get("/", ""),
        get("/", PYTHON[4]),
        get("/", "py.example", "Host: py.example"),
        get("/", "py.example", "Host: api.example"),
        get("/", "py.example", "host: api.example"),
        get("https://api.example/"),
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"GET  /  HTTP/1.1 x\r\nHost: py.example\r\n\r\n",
        b"GET / HTTP/9\r\nHost: py.example\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: py.example\r\n\r\n",
        get("/", "py.example", "Content-Length: 1", "Transfer-Encoding: chunked"),
        get("/", "py.example", "Content-Length: 1", "Content-Length: 2"),
        get("/", "py.example", "Content-Length: 1", "Content-Length: 1"),
        get("/", "py.example", "Content-Length: +1"),
        get("/", "py.example", "Content-Length: 1, 1"),
        get("/", "py.example", "Content-Length: -1"),
        get("/", "py.example", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        get("/", "py.example", "Transfer-Encoding: xchunked"),
        get("/", "py.example", "Transfer-Encoding: chunked, identity"),
        get("/", "py.example", "Transfer-Encoding : chunked"),
        get("/", "py.example", "X-Folded: a", " b: c"),
        get("/", "py.example", "X-Bare: a\rHost: api.example"),
        get("/", "py.example", "X-Nul: a\0b"),
        get("/", "py.example", "X Y: a"),
        get("/", "py.example", ": a"),
        get("/", "py.example", "no colon"),
        get("/", "py.example", "X-HTTP-Method-Override: DELETE"),
        get("/", "py.example", "x-original-url: /secret"),
        get("/\0"),
        get("/a?b\x01c"),
    ],
    ids=repr,
)
def test_what_two_servers_could_read_differently_gets_nowhere(bed: Bed, origin: Origin, request_: bytes) -> None:
    """Nothing of it reaches the server, and it is recorded."""
    since, before = len(origin.heads), len(bed.entries)
    with talk(bed, PYTHON, "py.example") as client:
        status, _ = answered(client, request_)
    assert status.split(b" ")[1] in {b"400", b"403"}
    bed.wait_for_denial(before)
    assert {entry.decision.action for entry in bed.entries[before:]} == {Action.DENY}
    assert len(origin.heads) == since


def test_a_second_host_on_the_same_connection_is_judged_by_itself(bed: Bed, origin: Origin) -> None:
    with talk(bed, PYTHON, "py.example") as client:
        assert answered(client, get("/"))[0] == b"HTTP/1.1 200 OK"
        assert b"403" in answered(client, get("/", "api.example"))[0]
        assert answered(client, get("/"))[0] == b"HTTP/1.1 200 OK"


def test_pipelined_requests_are_each_judged(bed: Bed, origin: Origin) -> None:
    with talk(bed, PYTHON, "py.example") as client:
        client.sendall(get("/1") + get("/2", "api.example") + get("/3"))
        seen = b""
        while b"GET /3 " not in seen:  # told back
            seen += client.recv(65536)
    assert re.findall(rb"HTTP/1\.1 (\d+) ", seen) == [b"200", b"403", b"200"]


def test_http2_requests_are_judged_by_their_authority(bed: Bed) -> None:
    assert bed.status("--http2", "-H", "Host: other.example", "https://api.example/") == "403"


def test_every_request_has_its_owner_and_its_flow(bed: Bed) -> None:
    since = len(bed.entries)
    bed.curl("https://api.example/x")
    (entry,) = bed.entries[since:]
    assert isinstance(entry.subject, Request)
    assert str(entry.subject.flow.dst) == NGINX[4]
    assert entry.owner is not None


def test_a_server_that_hangs_up_is_a_502(bed: Bed, origin: Origin, tmp_path: Path) -> None:
    assert bed.status("--http1.1", "https://py.example/hang-up") == "502"
