"""`dnsfw up` on a laptop with a container behind a bridge, which has a resolver of its own in mind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from tests.e2e.bridged import PROGRAM, Container, container_on_a_laptop
from tests.e2e.guards import up

pytestmark = pytest.mark.kernel


@pytest.fixture
def container() -> Iterator[Container]:
    with container_on_a_laptop() as made:
        yield made


@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
def test_a_container_reaches_what_the_policy_names_and_nothing_else(
    container: Container, tmp_path: Path, version: int
) -> None:
    server = atlas.EVIL_NAMESERVER.addresses[version == 6]
    allowed, evil = atlas.ALLOWED.addresses[version == 6], atlas.EVIL.addresses[version == 6]
    journal = tmp_path / "journal"
    assert container.python(PROGRAM, server, atlas.EVIL_ZONE, "443") == evil  # unguarded
    with up(container.laptop, tmp_path, "--journal", str(journal)):
        container.laptop.forget()
        assert container.python(PROGRAM, server, atlas.ALLOWED_NAME, "443") == allowed
        assert container.python(PROGRAM, server, atlas.ALLOWED_NAME, "80") == "ConnectionRefusedError"
        assert container.python(PROGRAM, server, atlas.EVIL_ZONE, "443") == "no such name"
        bare = f"import socket; socket.create_connection(({evil!r}, 443), 5)"
        assert "ConnectionRefusedError" in container.python(bare)
        assert not [arrival for arrival in container.laptop.arrivals() if atlas.EVIL_ZONE in str(arrival)]
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    flows = [record for record in records if record.get("subject", {}).get("kind") == "flow"]
    assert {flow["subject"]["src"] for flow in flows} == {("172.30.0.2", "fd30::2")[version == 6]}
    asked = [record for record in records if record.get("subject", {}).get("kind") == "query"]
    spoke = {record["owner"] and record["owner"]["exe"] for record in (*flows, *asked)}
    assert spoke == {str(Path(sys.executable).resolve())}
    assert flows
    assert asked


# Talks to an echo server, a word for each line on its standard input, and says what comes of it.
TALKER = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 7), 5)
print("connected", flush=True)
for line in sys.stdin:
    try:
        peer.sendall(line.encode())
        print(peer.recv(100).decode().strip() or "closed", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.mark.parametrize("address", atlas.ALLOWED.addresses)
def test_another_policy_ends_a_container_s_connection_too(container: Container, tmp_path: Path, address: str) -> None:
    policy = f"[{address}]:7\n" if ":" in address else f"{address}:7\n"
    talker = ["nsenter", "-t", str(container.pid), "-n", sys.executable, "-c", TALKER, address]
    with (
        up(container.laptop, tmp_path, policy=policy) as guard,
        subprocess.Popen(talker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        said, heard = process.stdin, process.stdout
        assert said is not None
        assert heard is not None
        assert guard.stderr is not None
        assert heard.readline() == "connected\n"
        for word, answer in (("one", "one"), ("two", "ConnectionResetError")):
            said.write(f"{word}\n")
            said.flush()
            assert heard.readline() == f"{answer}\n"
            (tmp_path / "policy").write_text("")
            if word == "one":
                guard.send_signal(signal.SIGHUP)
                while "live flow" not in (line := guard.stderr.readline()):
                    assert line, "it ended"
        said.close()
