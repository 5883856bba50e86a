"""Records: what the gate hands over, as JSON and back; and a writer that neither blocks nor lies about what it lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsfw.errors import UsageError
from dnsfw.journal import SCHEMA, Entry, Journal, Record, to_record
from dnsfw.privilege import ROOT
from policy import Action, Decision, Flow, Kind, Owner, Query, Reason, Rule, Source
from policy.names import Pattern

CLIENT = Flow(17, ip_address("127.0.0.1"), 40_000, ip_address("127.0.0.1"), 53053)
DENIED = Decision(Action.DENY, Reason.NO_RULE, None, None)


def rule(text: str, line: int = 3) -> Rule:
    return Rule(Action.ALLOW, Kind.HOST, Pattern("example.com"), source=Source("a.policy", line, 1, text))


def entry(name: str = "example.com") -> Entry:
    return Entry(Query(name, 1, CLIENT), DENIED, None, ())


words = st.text(max_size=30)
addresses = st.ip_addresses()
ports = st.integers(0, 0xFFFF)
flows = st.builds(Flow, st.integers(0, 255), addresses, ports, addresses, ports)
owners = st.builds(
    Owner,
    pid=st.integers(1, 1 << 22),
    start_time=st.integers(0, 1 << 60),
    uid=st.integers(0, 0xFFFFFFFE),
    exe=words,
    argv=st.lists(words, max_size=5).map(tuple),
    cgroup=words,
    complete=st.booleans(),
)
decisions = st.builds(
    Decision, st.sampled_from(Action), st.sampled_from(Reason), st.none() | st.builds(rule, words), st.none() | words
)
entries = st.builds(
    Entry,
    st.none() | flows | st.builds(Query, words, ports, flows),
    decisions,
    st.none() | owners,
    st.lists(words, max_size=4).map(tuple),
    fault=st.none() | words,
)


@settings(deadline=None)  # a busy machine proves nothing
@given(entries, st.floats(0, 4e9), st.sampled_from(["audit", "enforce"]))
def test_a_record_is_one_line_of_json_and_comes_back_as_it_was(made: Entry, when: float, mode: str) -> None:
    record = to_record(made, when, mode)
    line = msgspec.json.encode(record)
    assert b"\n" not in line
    assert msgspec.json.decode(line, type=Record) == record
    plain = json.loads(line)
    assert (plain["v"], plain["mode"], plain["decision"]) == (SCHEMA, mode, made.decision.action.value)
    assert abs(datetime.fromisoformat(plain["time"]).timestamp() - when) < 1e-5


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        (None, {"kind": "unreadable"}),
        (
            Query("example.com", 28, CLIENT),
            {"kind": "query", "name": "example.com", "qtype": 28, "proto": 17, "src": "127.0.0.1", "sport": 40_000},
        ),
        (
            Flow(6, ip_address("2001:db8::1"), 1, ip_address("2001:db8::2"), 443),
            {"kind": "flow", "proto": 6, "src": "2001:db8::1", "sport": 1, "dst": "2001:db8::2", "dport": 443},
        ),
    ],
    ids=["unreadable", "query", "flow"],
)
def test_what_a_record_says_of_its_subject(subject: Query | Flow | None, said: dict[str, object]) -> None:
    made = Entry(subject, Decision(Action.ALLOW, Reason.ALLOW_RULE, rule("*.com  # a"), "x"), None, ("x",))
    record = json.loads(msgspec.json.encode(to_record(made, 1.5, "enforce")))
    assert record["subject"] == said
    assert record["time"] == "1970-01-01T00:00:01.500000Z"
    assert record["rule"] == {"file": "a.policy", "line": 3, "text": "*.com  # a"}
    assert (record["owner"], record["names"], record["fault"]) == (None, ["x"], None)


def names(path: Path) -> list[str]:
    return [json.loads(line)["subject"]["name"] for line in path.read_text().splitlines()]


root = pytest.mark.skipif(os.geteuid() != 0, reason="the journal is opened with another user's rights, which root may")


@root
def test_all_that_was_taken_is_written_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "enforce", ROOT, clock=lambda: 0.0)
    journal.start()
    for number in range(1000):
        journal.record(entry(f"n{number}.example"))
    journal.close()
    assert names(tmp_path / "journal") == [f"n{number}.example" for number in range(1000)]
    assert (journal.lost, journal.trouble) == (0, "")


@root
def test_closing_twice_or_before_the_start_is_harmless(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "enforce", ROOT)
    journal.record(entry())
    journal.close()
    journal.close()
    assert journal.lost == 1  # never started: told, not forgotten


def test_without_a_file_nothing_is_kept(tmp_path: Path) -> None:
    journal = Journal(None, "enforce", ROOT)
    journal.start()
    journal.record(entry())
    journal.close()
    assert (journal.lost, list(tmp_path.iterdir())) == (0, [])


@root
def test_an_unread_pipe_is_left_after_a_while_and_all_it_did_not_take_is_lost(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    journal = Journal(pipe, "enforce", ROOT)
    journal.start()
    for number in range(3000):
        journal.record(entry(f"n{number}.example"))
    journal.close()
    received = os.read(reader, 1 << 20)
    assert 3000 - received.count(b"\n") <= journal.lost <= 3000  # what a blocked write(2) got through it doesn't say
    assert journal.trouble
    os.close(reader)  # and the thread's write ends in EPIPE


FULL = """
import json, os, sys
sys.path.insert(0, sys.argv[2])
from tests.dnsfw.test_dnsfw_journal import *
path = Path(sys.argv[1])
journal = Journal(path / "journal", "enforce", ROOT)
(path / "ballast").write_bytes(bytes(8192))
def line(name): return msgspec.json.encode(to_record(entry(name), 0.0, "enforce")) + b"\\n"
journal._write(journal._file, [line(f"a{n}.example") for n in range(100)])
lost = journal.lost
(path / "ballast").unlink()
journal._write(journal._file, [line("after.example")])
lines = (path / "journal").read_bytes().splitlines()
readable = 0
for line in lines:
    try: readable += bool(json.loads(line))
    except ValueError: pass
print(lost, readable, len(lines), journal.trouble, b"after.example" in lines[-1], json.loads(lines[-1])["v"])
"""


@pytest.mark.kernel("root")
def test_a_line_cut_off_by_a_full_disk_spoils_no_other(tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=16k none {tmp_path} && exec "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    python = [sys.executable, "-c", FULL, str(tmp_path), str(Path(__file__).parents[2])]
    done = subprocess.run([*command, *python], capture_output=True, text=True, check=True)
    lost, readable, lines, *trouble = done.stdout.split()
    assert int(lost) == 100 - (int(readable) - 1)  # the last is the one that came afterwards
    assert int(lines) - int(readable) <= 1
    assert " ".join(trouble) == "No space left on device True 1"


@root
@pytest.mark.parametrize(
    ("place", "reason"),
    [("no/such/place", "No such file or directory"), (".", "Is a directory")],
    ids=["none", "folder"],
)
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Journal(tmp_path / place, "enforce", ROOT)


def test_the_time_is_utc() -> None:
    now = datetime(2030, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert to_record(entry(), now.timestamp(), "audit").time == "2030-02-03T04:05:06.000007Z"
