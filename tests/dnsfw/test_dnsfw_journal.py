"""Records: what the gate hands over, as JSON and back; and a writer that neither blocks nor lies about what it lost."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsfw.errors import UsageError
from dnsfw.journal.file import Rotation, turn_over
from dnsfw.journal.folding import Folding
from dnsfw.journal.records import SCHEMA, Entry, Record, schema, to_record
from dnsfw.journal.writer import Journal, Keeping
from dnsfw.machine.privilege import ROOT
from policy import Action, Decision, Flow, Kind, Owner, Query, Reason, Rule, Seen, Source, Spent, Spoken
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
    journal = Journal(tmp_path / "journal", "enforce", ROOT, Keeping(clock=lambda: 0.0))
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
import sys
sys.path.insert(0, sys.argv[2])
from tests.dnsfw.test_dnsfw_journal import *
path, said = Path(sys.argv[1]), []
ballast = path / "ballast"
ballast.write_bytes(bytes(57_344))
journal = Journal(path / "journal", "enforce", ROOT, Keeping(tell=said.append))
journal.start()
for number in range(100):
    journal.record(entry(f"a{number}.example"))
until(lambda: journal.failing)
state = journal.state()
ballast.unlink()
journal.record(entry("after.example"))
until(lambda: not journal.failing)
journal.close()
print(state.trouble, state.lost, *said, sep="|")
print(*(path / "journal").read_text().splitlines(), sep=chr(10))
"""


def until(true: Callable[[], bool]) -> None:
    """Raises AssertionError if that takes too long."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.kernel("root")
def test_a_full_disk_is_told_at_once_and_all_is_written_when_there_is_room(tmp_path: Path) -> None:
    """A line that was cut off spoils no other."""
    script = f'mount -t tmpfs -o size=64k none {tmp_path} && exec "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    python = [sys.executable, "-c", FULL, str(tmp_path), str(Path(__file__).parents[2])]
    done = subprocess.run([*command, *python], capture_output=True, text=True, check=True)
    told, *lines = done.stdout.splitlines()
    trouble, lost, broken, mended = told.split("|")  # each told once
    assert (trouble, lost) == ("No space left on device", "0")
    assert broken.endswith("journal can't be written: No space left on device. The guard goes on without it.")
    assert mended.endswith("journal is written again; 0 decisions are not in it.")
    whole = [json.loads(line)["subject"]["name"] for line in lines if line.endswith("}")]
    assert whole == [*(f"a{number}.example" for number in range(100)), "after.example"]
    assert len(lines) - len(whole) <= 1


@root
def test_what_the_ring_has_no_room_for_is_lost_the_oldest_first_and_counted(tmp_path: Path) -> None:
    """R3: the writer is not started, the slowest disk there is; 100 more than there is room for."""
    journal = Journal(tmp_path / "journal", "enforce", ROOT)
    for number in range(65_636):
        journal.record(entry(f"n{number}.example"))
    assert journal.lost == 100
    journal.start()
    journal.close()
    assert journal.lost == 100
    written = names(tmp_path / "journal")
    assert (len(written), written[0]) == (65_536, "n100.example")


@root
def test_repeats_are_one_record_with_their_count(tmp_path: Path) -> None:
    ticks = iter(range(1000))
    journal = Journal(tmp_path / "journal", "enforce", ROOT, Keeping(clock=lambda: float(next(ticks))))
    for number in range(10):
        for name in ("a.example", "b.example"):
            client = CLIENT.but(sport=40_000 + number)
            journal.record(Entry(Query(name, 1, client), DENIED, None, ()))
    journal.start()
    journal.close()
    lines = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    said = [(line["subject"]["name"], line["times"], line["time"][-10:], line["until"]) for line in lines]
    assert said == [
        ("a.example", 1, "00.000000Z", None),
        ("b.example", 1, "01.000000Z", None),
        ("a.example", 9, "02.000000Z", "1970-01-01T00:00:18.000000Z"),
        ("b.example", 9, "03.000000Z", "1970-01-01T00:00:19.000000Z"),
    ]
    state = journal.state()
    assert (state.written, state.folded, state.lost) == (4, 16, 0)


@settings(deadline=None)
@given(st.lists(st.tuples(entries, st.integers(0, 3)), max_size=12))
def test_folding_loses_no_count_and_joins_only_what_is_alike(made: list[tuple[Entry, int]]) -> None:
    folding, first = Folding(), list[Entry]()
    for one, more in made:
        first += [again for again in [one] * (more + 1) if not folding.takes(again, 0.0)]
    rolled = folding.roll()
    assert len(first) + sum(taken.times for taken in rolled) == sum(more + 1 for _, more in made)
    told = [one for one, _ in made]
    for taken in rolled:
        assert taken.entry in told
        assert taken.entry.fault is None
    assert not folding.roll()


@pytest.mark.parametrize(
    "changed",
    [
        {"subject": Query("example.com", 28, CLIENT)},
        {"subject": Query("example.net", 1, CLIENT)},
        {"subject": Query("example.com", 1, CLIENT.but(src=ip_address("127.0.0.2")))},
        {"subject": Query("example.com", 1, CLIENT.but(proto=6))},
        {"decision": Decision(Action.ALLOW, Reason.ALLOW_RULE, None, None)},
        {"owner": Owner(7, 70, 1000, "/bin/x", (), "/")},
        {"names": ("a",)},
        {"seen": Seen(Spoken.TLS, None)},
        {"fault": "broken"},
        {"spent": Spent(1, 1, 1, 1, "a")},
        {"subject": None},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_differs_in_anything_is_another_record(changed: dict[str, Any]) -> None:
    folding = Folding()
    assert not folding.takes(entry(), 0.0)
    assert not folding.takes(entry().but(**changed), 1.0)
    assert folding.takes(entry(), 2.0)


@root
@pytest.mark.parametrize("files", [1, 3])
def test_a_full_file_is_turned_over_and_nothing_is_lost(tmp_path: Path, files: int) -> None:
    """R3. As the supervisor does it, when the engine asks."""
    path, asked = tmp_path / "journal", list[int]()

    def turn() -> None:
        asked.append(path.stat().st_size)
        journal.continue_in(turn_over(path, ROOT, files))

    journal = Journal(path, "enforce", ROOT, Keeping(Rotation(2_000, files), turn, pause=0.003))
    journal.start()
    for number in range(60):
        journal.record(entry(f"n{number}.example"))
        until(lambda: not journal._backlog and not journal._in_hand)
    journal.close()
    assert len(asked) > 3
    assert journal.lost == 0
    found = sorted(tmp_path.iterdir())
    assert [each.name for each in found] == ["journal", "journal.1", "journal.2"][:files]
    together = [name for each in reversed(found) for name in names(each)]
    assert together == [f"n{number}.example" for number in range(60 - len(together), 60)]
    assert all(each.stat().st_size < 2_600 and stat.S_IMODE(each.stat().st_mode) == 0o600 for each in found)


@root
def test_a_full_file_that_nobody_turns_over_grows_no_more(tmp_path: Path) -> None:
    """R3: bounded by its size, whatever happens; what doesn't fit waits in the ring, and is told."""
    said = list[str]()
    keeping = Keeping(Rotation(2_000, 3), lambda: None, said.append, pause=0.003)
    journal = Journal(tmp_path / "journal", "enforce", ROOT, keeping)
    journal.start()
    for number in range(60):
        journal.record(entry(f"n{number}.example"))
        until(lambda: journal.failing or not (journal._backlog or journal._in_hand))
    journal.close()
    assert (tmp_path / "journal").stat().st_size < 5_000
    assert journal.lost == 60 - len(names(tmp_path / "journal"))
    assert "no new one can be begun" in said[0]


@root
def test_turning_over_follows_no_link(tmp_path: Path) -> None:
    """Nor does it keep more files than it may."""
    path = tmp_path / "journal"
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    os.close(turn_over(path, ROOT, 2))
    os.close(turn_over(path, ROOT, 2))
    assert victim.read_text() == "precious"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["journal", "journal.1", "victim"]


def test_the_published_schema_is_current() -> None:
    """A5: `make schema` writes it."""
    published = Path(__file__).parents[2] / "docs" / "journal.schema.json"
    assert published.read_text(encoding="utf-8") == schema()


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
