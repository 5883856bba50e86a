"""Whom programs trust under `dnsfw run` with URL rules: every kind of client, and nobody outside."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import Inside, Laptop, private

pytestmark = pytest.mark.kernel

SITE = atlas.ALLOWED_NAME
POLICY = f"https://{SITE}/open/*\n{atlas.SHARED_NAME}\n"
STORE = Path("/etc/ssl/certs")
ANCHOR = b"dnsfw [0-9a-f]{8}, this start only"

_JAVA = """
import java.net.*;

public class Fetch {
    public static void main(String[] urls) throws Exception {
        System.out.write(new URL(urls[0]).openStream().readAllBytes());
        System.out.flush();
    }
}
"""
_URLLIB = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
_FETCH = "fetch(process.argv[1]).then(answer => answer.text()).then(console.log)"
_CLIENTS = {
    "curl": ["curl", "-sS"],
    "wget": ["wget", "-q", "-O-"],
    "python3": ["python3", "-c", _URLLIB],
    "node": ["node", "-e", _FETCH],
    "java": ["java", "Fetch.java"],
    "git": ["git", "ls-remote"],
}
_OF_THE_STORE = ("curl", "wget", "python3", "git")
# git asks for more than the site has; whoever gets that far trusts it.
_SAID = dict.fromkeys(_CLIENTS, f"hello from {SITE}") | {"git": "is this a git repository?"}


@pytest.fixture(scope="module")
def laptop(world: Playground, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    return Laptop(world, tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def clients(laptop: Laptop) -> dict[str, str]:
    """What each client said, with the caller's variables and without any: one guard for all of them."""
    work = laptop.directory / "clients"
    work.mkdir()
    (work / "Fetch.java").write_text(_JAVA)
    script = [f"cd {work}"]
    for name, command in _CLIENTS.items():
        quoted = " ".join(f"'{word}'" for word in command)
        clean = 'env -i "PATH=$PATH" HOME=/nonexistent'
        script += [f"{quoted} https://{SITE}/open/{name} >{name}.out 2>&1 &"]
        if name in _OF_THE_STORE:
            script += [f"{clean} {quoted} https://{SITE}/open/{name} >{name}.clean.out 2>&1 &"]
    done = laptop.run(POLICY, ["sh", "-c", "\n".join([*script, "wait"])])
    assert done.returncode == 0, done.stderr
    return {path.name.removesuffix(".out"): path.read_text() for path in work.glob("*.out")}


@pytest.mark.parametrize("client", _CLIENTS)
def test_a_client_trusts_the_proxy_by_its_variables(clients: dict[str, str], client: str) -> None:
    if shutil.which(client) is None:
        pytest.skip(f"there is no {client} here")
    assert _SAID[client] in clients[client]


@pytest.mark.parametrize("client", _OF_THE_STORE)
def test_a_client_trusts_the_proxy_by_the_system_s_store(clients: dict[str, str], client: str) -> None:
    """Variables get lost. Node and Java have roots of their own."""
    if shutil.which(client) is None:
        pytest.skip(f"there is no {client} here")
    assert _SAID[client] in clients[f"{client}.clean"]


def anchors(bundle: Path) -> int:
    """How many of ours a PEM bundle has."""
    pem = bundle.read_text(errors="replace")
    found = re.findall("-----BEGIN CERT.*?END CERTIFICATE-----\n", pem, re.DOTALL)
    return sum(re.search(ANCHOR, ssl.PEM_cert_to_DER_cert(one)) is not None for one in found)


@pytest.fixture(scope="module")
def inside(laptop: Laptop) -> Iterator[Inside]:
    with laptop.agent(POLICY) as inside:
        yield inside


def seen(inside: Inside, path: str) -> Path:
    """A file as the command sees it."""
    return Path(f"/proc/{inside.children()[-1]}/root{path}")


def test_nothing_changes_on_the_host(inside: Inside) -> None:
    """Its store is what it was, and has nothing of ours; the command's has."""
    assert anchors(seen(inside, "/etc/ssl/certs/ca-certificates.crt")) == 1
    assert anchors(STORE / "ca-certificates.crt") == 0
    ours = {path.name for path in seen(inside, "/etc/ssl/certs").iterdir()}
    hosts = {path.name for path in STORE.iterdir()}
    assert len(ours - hosts) == 1
    assert hosts <= ours
    assert not os.access(seen(inside, "/etc/ssl/certs") / "x", os.W_OK)


def test_two_runs_trust_each_its_own(laptop: Laptop, inside: Inside) -> None:
    with laptop.agent(POLICY) as other:
        bundles = [seen(one, "/run/dnsfw/ca-certificates.crt").read_bytes() for one in (inside, other)]
        assert [one.fetch(f"https://{SITE}/open/x")["outcome"] for one in (inside, other)] == ["200", "200"]
    assert bundles[0] != bundles[1]


@pytest.fixture(scope="module")
def bundles(laptop: Laptop) -> str:
    """What a caller's own variables name under a guard: a company's authority, and a file that is root's."""
    corporate, secret = laptop.world.authority, laptop.world.directory / "secret"
    secret.write_text("for root alone\n")
    secret.chmod(0o600)
    show = 'cat "$REQUESTS_CA_BUNDLE"; echo ====; cat /run/dnsfw/*.crt /run/dnsfw/*.pem'
    command = laptop.command(POLICY, "-q", command=["sh", "-c", show])
    caller = ["env", "SUDO_UID=65534", "SUDO_GID=65534", f"REQUESTS_CA_BUNDLE={corporate}", f"CURL_CA_BUNDLE={secret}"]
    return laptop.world.run([*caller, *command]).stdout


def test_a_bundle_of_the_caller_s_own_is_kept(laptop: Laptop, bundles: str) -> None:
    """Whoever trusts one authority alone trusts that one and ours, not the whole world."""
    named = bundles.split("====\n", maxsplit=1)[0]
    assert named.startswith(laptop.world.authority.read_text())
    assert named.count("BEGIN CERTIFICATE") == 2


def test_a_variable_shows_nobody_a_file_that_the_caller_may_not_read(bundles: str) -> None:
    assert bundles.split("====\n")[1].count("BEGIN CERTIFICATE") > 2
    assert "for root alone" not in bundles


def test_without_url_rules_there_is_no_proxy_no_port_and_no_authority(laptop: Laptop) -> None:
    with laptop.agent(f"{SITE}\n") as inside:
        assert len(inside.children()) == 2  # the engine and the command
        listening = inside.outside("ss", "-Htln").stdout
        assert listening.count("LISTEN") == 2  # the resolver, IPv4 and IPv6
        store = seen(inside, "/etc/ssl/certs/ca-certificates.crt")
        assert hashlib.sha256(store.read_bytes()).digest() == hashlib.sha256(laptop_store(laptop)).digest()
        assert list(seen(inside, "/run/dnsfw").iterdir()) == []
        environ = seen(inside, "").joinpath("proc", "2", "environ").read_bytes()
        assert b"/run/dnsfw" not in environ


def laptop_store(laptop: Laptop) -> bytes:
    return laptop.world.run(["cat", str(STORE / "ca-certificates.crt")]).stdout.encode()


def test_a_machine_without_roots_is_a_clear_error(laptop: Laptop) -> None:
    """Servers can't be verified then: nothing is started."""
    command = private(laptop.command(POLICY, command=["echo", "started"]), f"mount -t tmpfs none {STORE}")
    done = laptop.world.run(command)
    assert (done.returncode, done.stdout) == (125, "")
    assert "no certificates of public authorities" in done.stderr
    assert "Install the package ca-certificates." in done.stderr


def test_no_file_has_a_private_key(inside: Inside) -> None:
    """Not in the run's own directory, and not in what the command is shown."""
    for place in (Path("/run/dnsfw"), seen(inside, "/run/dnsfw"), seen(inside, "/etc/ssl/certs")):
        found = subprocess.run(["grep", "-rl", "PRIVATE KEY", place], capture_output=True, text=True, check=False)
        assert found.stdout == ""
