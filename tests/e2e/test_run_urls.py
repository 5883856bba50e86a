"""Rules about URLs under `dnsfw run`, from the policy's line to the journal's record."""

from __future__ import annotations

import hashlib
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import Laptop

pytestmark = pytest.mark.kernel

SITE, BESIDE = atlas.SHARED_NAME, atlas.EVIL_SHARED_NAME  # two names of one address
POLICY = f"https://{SITE}/open/*\nPOST https://{SITE}/sink\nhttp://{SITE}/open/*\n{BESIDE}\n"
POLICY += f"https://{SITE}/wget/* exe=/usr/bin/wget\n"
_SHOWN = """
import hashlib, socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
for name in sys.argv[1:]:
    with context.wrap_socket(socket.create_connection((name, 443)), server_hostname=name) as client:
        print(hashlib.sha256(client.getpeercert(True)).hexdigest())
"""
_SCRIPT = f"""
ask() {{ curl -sS -o /dev/null -w '%{{http_code}} ' "$@" || printf "(%s) " $?; }}
printf 'url = "https://{SITE}/open/x?secret=hush"\nheader = "X-Secret: hush"' | ask -4 -K -  # not in its argv
ask -6 https://{SITE}/open/x
ask http://{SITE}/open/x
ask -d sent https://{SITE}/sink
ask https://{SITE}/shut
ask -X DELETE https://{SITE}/open/x
ask --path-as-is https://{SITE}/open/../shut
ask https://{SITE}/open/x -H 'Host: {BESIDE}'
for family in -4 -6; do
  ask $family https://{SITE}/wget/x
  wget $family -q -O /dev/null https://{SITE}/wget/x && printf 'wget '
done
ask --cacert "$1" --capath /nonexistent https://{SITE}/open/x 2>/dev/null
echo
/usr/bin/python3 -c "$2" {SITE} {BESIDE}
/usr/bin/python3 -c 'import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.connect((sys.argv[1], 443))
    udp.send(bytes(1200))
    udp.recv(1)' {SITE} 2>&1 | tail -1
"""


@dataclass(frozen=True, slots=True)
class Ran:
    lines: list[str]
    summary: str
    records: list[dict[str, Any]]  # of decisions


@pytest.fixture(scope="module")
def ran(world: Playground, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    laptop = Laptop(world, tmp_path_factory.mktemp("urls"))
    journal = laptop.directory / "journal"
    script = ["sh", "-c", _SCRIPT, "sh", str(world.authority), _SHOWN]
    done = laptop.run(POLICY, script, "--journal", str(journal))
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    decisions = [record for record in records if "subject" in record]
    return Ran(done.stdout.splitlines(), done.stderr, decisions)


def test_what_the_rules_allow_passes_and_the_rest_is_told(ran: Ran) -> None:
    assert ran.lines[0].split() == ["200"] * 4 + ["403"] * 4 + ["403", "wget"] * 2 + ["000", "(60)"]


def test_a_host_rule_at_the_same_address_is_not_decrypted(ran: Ran, world: Playground) -> None:
    der = ssl.PEM_cert_to_DER_cert((Path(world.directory) / "site.pem").read_text())
    real = hashlib.sha256(der).hexdigest()
    assert ran.lines[1] != real
    assert ran.lines[2] == real


def test_http_3_has_no_way_and_clients_hear_so_at_once(ran: Ran) -> None:
    assert "Permission denied" in ran.lines[3] or "refused" in ran.lines[3] or "No route" in ran.lines[3]


def test_the_journal_has_each_request_its_owner_and_its_rule_and_no_query(ran: Ran) -> None:
    requests = [record for record in ran.records if record["subject"]["kind"] == "request"]
    told = [(record["subject"]["method"], record["subject"]["path"], record["reason"]) for record in requests]
    assert told == [
        ("GET", "/open/x", "allow-rule"),
        ("GET", "/open/x", "allow-rule"),
        ("GET", "/open/x", "allow-rule"),
        ("POST", "/sink", "allow-rule"),
        ("GET", "/shut", "path"),
        ("DELETE", "/open/x", "method"),
        ("GET", "/open/../shut", "malformed"),
        ("GET", "/open/x", "no-binding"),
        *[("GET", "/wget/x", "path"), ("GET", "/wget/x", "allow-rule")] * 2,
    ]
    assert {record["owner"]["exe"] for record in requests[:8]} == {"/usr/bin/curl"}
    assert "hush" not in json.dumps(ran.records)


def test_a_url_for_one_program_is_denied_to_another(ran: Ran) -> None:
    asked = [record for record in ran.records if record["subject"].get("path") == "/wget/x"]
    answers = [
        (":" in record["subject"]["src"], record["owner"]["exe"], record["owner"]["argv"][0], record["decision"])
        for record in asked
    ]
    by_curl, by_wget = ("/usr/bin/curl", "curl", "deny"), ("/usr/bin/wget", "wget", "allow")
    assert answers == [(six, *each) for six in (False, True) for each in (by_curl, by_wget)]


def test_the_summary_says_what_to_add(ran: Ran) -> None:
    assert f"✗ GET https://{SITE}/shut  by /usr/bin/curl" in ran.summary
    assert f"to allow it: GET https://{SITE}/shut" in ran.summary
    assert f"to allow it: DELETE https://{SITE}/open/x" in ran.summary
    assert f"to allow it: {SITE} passthrough" in ran.summary


def test_audit_lets_every_request_through(world: Playground, tmp_path: Path) -> None:
    done = Laptop(world, tmp_path).run(POLICY, ["curl", "-sS", f"https://{SITE}/shut"], "--audit")
    assert done.stdout == f"hello from {SITE}\n"
    assert f"to allow it: GET https://{SITE}/shut" in done.stderr
