"""Programs that people use, through the proxy: each gets what is allowed, and hears why it doesn't get the rest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proxy.bed import PROGRAMS, Bed

pytestmark = pytest.mark.kernel("root", "netns", "nft", "nginx")

ALLOWED, DENIED = "https://api.example/files/a.txt", "https://api.example/secret"
TEXT = b"a file of text\n" * 20

_REQUESTS = """
import requests, sys
with requests.Session() as session:
    answers = [session.get(url) for url in sys.argv[1:]]
print(*(answer.status_code for answer in answers), answers[0].text + answers[1].text)
"""
_HTTPX = """
import httpx, ssl, sys
with httpx.Client(http2=True, verify=ssl.create_default_context()) as client:
    answers = [client.get(url) for url in sys.argv[1:]]
print(*(answer.status_code for answer in answers), answers[0].text + answers[1].text)
"""
_FETCH = """
Promise.all(process.argv.slice(1).map(url => fetch(url))).then(async ([yes, no]) =>
  console.log(yes.status, no.status, await yes.text() + await no.text()));
"""
CLIENTS = {
    "curl": ["curl", "-sS", "--http2", "-w", "%{stderr}%{http_code} "],
    "curl 1.1": ["curl", "-sS", "--http1.1", "-w", "%{stderr}%{http_code} "],
    "wget": ["wget", "-q", "-O", "-", "--content-on-error", "--ca-certificate"],  # GnuTLS reads no variable
    "requests": [sys.executable, "-c", _REQUESTS],
    "httpx": [sys.executable, "-c", _HTTPX],
    "fetch": ["node", "-e", _FETCH],
}


def run(bed: Bed, *command: str) -> subprocess.CompletedProcess[bytes]:
    """A client that finds the servers' names in /etc/hosts, and the proxy's authority where it looks for such."""
    hosts = bed.directory / "hosts"
    hosts.write_text("".join(f"{ip} {name}\n" for name, at in bed.hosts.items() for ip in at.values()))
    seen = f'mount --bind "{hosts}" /etc/hosts && exec "$@"'
    variables = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO")
    trust = {**dict.fromkeys(variables, str(bed.root)), "GIT_COMMITTER_EMAIL": "a@example", "GIT_COMMITTER_NAME": "a"}
    return bed.run("unshare", "--mount", "sh", "-c", seen, "sh", *command, **trust)


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_a_client_gets_what_is_allowed_and_the_reason_for_the_rest(bed: Bed, client: list[str]) -> None:
    if shutil.which(client[0], path=PROGRAMS) is None:
        pytest.skip(f"there is no {client[0]} here")
    trust = [str(bed.root)] if client[-1] == "--ca-certificate" else []
    done = run(bed, *client, *trust, ALLOWED, DENIED)
    assert TEXT in done.stdout, done.stderr
    assert b"dnsfw: denied: GET https://api.example/secret\n    a deny rule names it" in done.stdout
    assert b"200 403" in done.stdout + done.stderr or client[0] == "wget"


def test_git_clones_what_is_allowed(bed: Bed, tmp_path: Path) -> None:
    work, bare = tmp_path / "work", bed.directory / "www/files/project.git"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example", "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "-q", work], check=True)
    subprocess.run([*git, "-C", work, "commit", "-q", "--allow-empty", "-m", "the first"], check=True)
    subprocess.run([*git, "clone", "-q", "--bare", work, bare], check=True)
    subprocess.run([*git, "-C", bare, "update-server-info"], check=True)
    done = run(bed, "git", "clone", "-q", "https://api.example/files/project.git", str(tmp_path / "clone"))
    assert done.returncode == 0, done.stderr
    log = subprocess.run(["git", "-C", tmp_path / "clone", "log", "--format=%s"], capture_output=True, check=True)
    assert log.stdout == b"the first\n"
    refused = run(bed, "git", "clone", "-q", "https://api.example/shut/project.git", str(tmp_path / "nothing"))
    assert b"403" in refused.stderr
