"""Under `dnsfw run`, one program's answers are not another's, however fast both ask, and every question is counted."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import PYTHON, Laptop, question

pytestmark = pytest.mark.kernel

TIMES = 300
HERE = Path(PYTHON).resolve()  # one program; a copy of it is another
# Asks one question again and again from one socket; then has the other program, given last, do the same, in turns.
SCRIPT = """
import socket, subprocess, sys
asked, times, other = bytes.fromhex(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(5)
    client.connect(("127.0.0.53", 53))
    seen = [0] * 16
    for ident in range(times):
        client.send(ident.to_bytes(2, "big") + asked[2:])
        reply = client.recv(4096)
        assert reply[:2] == ident.to_bytes(2, "big")
        seen[reply[3] & 15] += 1
print(sys.executable, *seen, flush=True)
if other:
    argv = ["-I", "-c", sys.orig_argv[3], sys.argv[1], sys.argv[2]]
    for program in (other[0], sys.executable) * 2:
        subprocess.run([program, *argv], check=True)
"""


def test_the_same_octets_are_another_question_from_another_program(world: Playground, tmp_path: Path) -> None:
    laptop, journal = Laptop(world, tmp_path), tmp_path / "journal"
    other = shutil.copy2(HERE, tmp_path / "other-python")
    policy = f"{atlas.ALLOWED_NAME} exe={HERE}\n"
    command = [str(HERE), "-I", "-c", SCRIPT]
    asked = question(atlas.ALLOWED_NAME, "A")
    done = laptop.run(policy, [*command, asked, str(TIMES), str(other)], "--journal", str(journal))
    assert done.returncode == 0, done.stderr
    said = [(Path(exe), [*map(int, seen)]) for exe, *seen in map(str.split, done.stdout.splitlines())]
    assert [exe for exe, _ in said] == [HERE, other, HERE, other, HERE]
    assert all((seen[0], seen[3]) == ((TIMES, 0) if exe == HERE else (0, TIMES)) for exe, seen in said)
    counted = Counter[tuple[str, str]]()
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    for record in records:
        if record.get("subject", {}).get("kind") == "query":
            counted[record["owner"]["exe"], record["decision"]] += record["times"]
    assert counted == {(str(HERE), "allow"): 3 * TIMES, (str(other), "deny"): 2 * TIMES}
    assert len(records) < TIMES, "and most of them were not asked about one by one"
