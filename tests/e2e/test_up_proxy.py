"""URL rules under `dnsfw up`: the host's programs go through the proxy, and trust it where that was asked for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground, Setting
from tests.e2e.guards import up_and_said

pytestmark = pytest.mark.kernel

SITE = f"https://{atlas.ALLOWED_NAME}"
POLICY = f"{SITE}/open/*\n"
# The laptop's own store, which `up` may change: copies of the machine's, in the laptop's mounts, with a few of the many
# roots, as update-ca-certificates(8) starts some programs for each.
FURNISH = """
set -e
for folder in /etc/ssl/certs /usr/local/share/ca-certificates; do
    mkdir -p "$1$folder"; cp -a $folder/. "$1$folder/"; mount --bind "$1$folder" $folder
done
grep '^[a-z]' /etc/ca-certificates.conf | head -n 5 >"$1/few"; mount --bind "$1/few" /etc/ca-certificates.conf
cp "$2" /usr/local/share/ca-certificates/playground.crt
update-ca-certificates --hooksdir /nonexistent >&2
"""
LIST = (
    "find /etc/ssl/certs /usr/local/share/ca-certificates -printf '%p %m %l\\n' | sort; sha256sum /etc/ssl/certs/*.crt"
)
STORE = ["sh", "-c", LIST]


@pytest.fixture
def laptop() -> Iterator[Playground]:
    with Playground(Setting()) as world:
        yield world


def fetch(laptop: Playground, path: str, before: str = "true") -> str:
    """The status, from a program without the caller's variables."""
    curl = f"curl -s -o /dev/null -w '%{{http_code}} %{{errormsg}}' --max-time 5 {SITE}{path}"
    return laptop.run(["env", "-i", "PATH=/usr/bin:/bin", "sh", "-c", f"{before}; {curl}"]).stdout.strip()


def test_the_host_trusts_the_proxy_until_down_where_that_was_asked_for(laptop: Playground, tmp_path: Path) -> None:
    done = laptop.run(["sh", "-c", FURNISH, "sh", str(tmp_path / "store"), str(laptop.authority)])
    assert done.returncode == 0, done.stderr
    before = laptop.run(STORE).stdout
    with up_and_said(laptop, tmp_path, "--install-ca", policy=POLICY) as (guard, _):
        assert fetch(laptop, "/open/x") == "200"
        assert fetch(laptop, "/shut/x") == "403"
        children = Path(f"/proc/{guard.pid}/task/{guard.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)  # the keeper: the next one has another authority
        deadline = time.monotonic() + 10
        while fetch(laptop, "/open/x") != "200":
            assert time.monotonic() < deadline
        guard.kill()
        guard.wait()
    assert laptop.run(STORE).stdout != before
    assert laptop.run(laptop.dnsfw("down")).returncode == 0
    assert laptop.run(STORE).stdout == before
    assert fetch(laptop, "/shut/x") == "200"


def test_otherwise_its_store_is_left_alone_and_the_way_to_trust_it_is_told(laptop: Playground, tmp_path: Path) -> None:
    before = laptop.run(STORE).stdout
    with up_and_said(laptop, tmp_path, policy=POLICY) as (guard, said):
        assert "--install-ca" in said
        assert "certificate problem" in fetch(laptop, "/open/x")
        script = said.split(": . ")[1].splitlines()[0]
        assert fetch(laptop, "/open/x", f". {script}") == "200"
        assert laptop.run(STORE).stdout == before
        guard.send_signal(signal.SIGINT)
    assert guard.returncode == 0
    assert not Path(script).parent.exists()
