"""dnsfw check --dump: a policy as JSON, by its published schema."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from dnsfw.policies.dump import PolicyRecord, schema
from policy import render
from policy.parse import parse
from tests.dnsfw.commands import dnsfw

ROOT = Path(__file__).parents[2]


def test_dump_is_json_that_says_each_rule_whole() -> None:
    text = "[exe=/usr/bin/a*]\nPOST https://{owner}.example/x private\n"
    said = dnsfw("check", "--dump", "--repo", "o/r", "-", stdin=text.replace(" private", ""))
    (rule,) = json.loads(said.out)["rules"]
    assert rule == {
        "action": "allow",
        "kind": "url",
        "host": "o.example",
        "network": None,
        "protocols": ["tcp"],
        "ports": [443],
        "url": {"scheme": "https", "path": "/x", "methods": ["POST"]},
        "attributes": [{"key": "exe", "value": "/usr/bin/a*", "literal": False, "position": None}],
        "flags": [],
        "within": [],
        "line": "POST https://o.example/x exe=/usr/bin/a*",
        "source": {"file": "<stdin>", "line": 2, "column": 1, "text": "POST https://{owner}.example/x"},
    }


def test_the_published_schema_is_that_of_the_types() -> None:
    """`make schema` writes it."""
    assert (ROOT / "docs" / "policy.schema.json").read_text(encoding="utf-8") == schema()


@pytest.mark.parametrize(
    "table", sorted((ROOT / "tests" / "policy" / "decisions").glob("*.txt")), ids=lambda path: path.stem
)
def test_every_rule_can_be_dumped_and_fits_the_schema(table: Path, tmp_path: Path) -> None:
    blocks = table.read_text(encoding="utf-8").split("\n===\n")
    text = "\n[]\n".join(block.partition("\n---\n")[0] for block in blocks).replace("user=runner", "user=0")
    said = dnsfw("check", "--dump", "-", stdin=text)
    assert said.status == 0, said.out
    read = msgspec.json.decode(said.out, type=PolicyRecord)
    assert [rule.line for rule in read.rules] == [
        render(rule) for rule in parse(text, "p", uid_of={"root": 0}.__getitem__).rules
    ]


def test_dump_says_protocols_and_ports_as_they_are() -> None:
    text = "a.example/icmp\n!b.example\ndns:c.example\nd.example:*/udp\ne.example:80|22"
    rules = json.loads(dnsfw("check", "--dump", "-", stdin=text).out)["rules"]
    assert [(rule["protocols"], rule["ports"]) for rule in rules] == [
        (["icmp", "icmpv6"], None), (None, None), ([], []), (["udp"], None), (["tcp"], [22, 80]),
    ]  # fmt: skip


def test_dump_of_an_invalid_policy_is_its_errors() -> None:
    said = dnsfw("check", "--dump", "-", stdin="a..b")
    assert said.status == 1
    assert "a label is empty" in said.out


def test_dump_wants_one_policy(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("a.example")
    said = dnsfw("check", "--dump", tmp_path / "p", tmp_path / "p")
    assert said.status == 2
    assert "one policy" in said.err
