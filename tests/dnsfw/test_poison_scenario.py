"""The form of a scenario: what is read, and what is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnsfw.errors import UsageError
from dnsfw.poison.records import absolute, encode_name, parse
from dnsfw.poison.scenario import load, shipped, written_out

LEAST = 'title = "t"\nattack = 3\nrule = "RFC 5452 9.1"\n[[ask]]\n'


def test_the_least_scenario_is_an_honest_question() -> None:
    scenario = load(LEAST, "least")
    (ask,) = scenario.ask
    assert (scenario.id, ask.name, ask.type, ask.over, scenario.level) == ("least", "www", "A", "udp", "must")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title =", "Invalid value"),
        ('title = "t"\nattack = 3\nrule = "r"', "nobody asks"),
        (LEAST.replace("attack = 3", "attack = 22"), "<= 21"),
        (LEAST.replace("rule", "ruel"), "ruel"),
        (LEAST + 'nmae = "www"', "nmae"),
        (LEAST + 'type = "AA"', "'AA' is not a record type"),
        (LEAST + 'expect = { rcode = "NOERORR" }', "'NOERORR' is not a response code"),
        (LEAST + 'expect = { absent = ["1.2.3"] }', "1.2.3"),
        (LEAST + 'harden = { lacks = ["zz"] }', "hex"),
        (LEAST + 'expect = { silent = true, rcode = "NOERROR" }', "must not come"),
        (LEAST + '[bound]\nnever = ["here"]', "here"),
        (LEAST + '[bound]\nflows = [{ to = "192.0.2.1", verdict = "maybe" }]', "maybe"),
        (LEAST + '[[upstream]]\nsend = [{ id = "worng" }]', "worng"),
        (LEAST + '[[upstream]]\nsend = [{ answer = ["www A 192.0.2.1"] }]', "www A 192.0.2.1"),
        (LEAST + '[[upstream]]\nsend = [{ answer = ["www 60 NULL abc"] }]', "must be written"),
        (LEAST + '[[upstream]]\nsend = [{ answer = [{ count = 1, record = "www 60 A 300.0.0.{b}" }] }]', "300"),
    ],
    ids=[
        "toml", "empty", "number", "key", "ask-key", "type", "rcode", "address", "hex", "silent", "never", "verdict",
        "id", "record", "data", "series",
    ],
)  # fmt: skip
def test_what_can_not_be_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        load(text, "wrong")
    assert "wrong" in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", ["with space" + "x" * 60, "a..b"], ids=["long", "empty-label"])
def test_a_scenario_is_called_as_a_name_can_be(name: str) -> None:
    with pytest.raises(UsageError):
        load(LEAST, name)


def test_all_shipped_scenarios_say_what_they_are_about() -> None:
    scenarios = shipped()
    assert len({scenario.title for scenario in scenarios}) == len(scenarios)
    assert [scenario.attack for scenario in scenarios] == sorted(scenario.attack for scenario in scenarios)
    judged = [each for each in scenarios if each.sent != type(each.sent)() or each.bound != type(each.bound)()]
    asked = [each for each in scenarios if any(ask.expect != type(ask.expect)() for ask in each.ask)]
    assert {each.id for each in judged} | {each.id for each in asked} == {each.id for each in scenarios}


def test_the_document_shows_each_of_them() -> None:
    table = (Path(__file__).parents[2] / "docs" / "poisoning.md").read_text(encoding="utf-8")
    assert [each.id for each in shipped() if f"| `{each.id}` | {each.title} |" not in table] == []


@pytest.mark.parametrize(
    ("name", "full"),
    [("www", "www.z.example."), ("@", "z.example."), ("cdn.other.", "cdn.other."), ("a.b", "a.b.z.example.")],
)
def test_names_are_as_in_a_zone_file(name: str, full: str) -> None:
    assert absolute(name, "z.example.") == full


def test_records() -> None:
    assert parse("@ 5 A 192.0.2.1", "z.").pack(b"\1z\0") == b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xc0\0\2\1"
    assert parse("w 4294967295 CNAME a.b.", "z.").data == b"\1a\1b\0"
    assert parse("w 5 HTTPS \\# 0001 00", "z.").data == b"\0\1\0"
    assert parse("w 5 MX 10 @", "z.").data == b"\0\x0a\1z\0"
    assert encode_name(".") == b"\0"


def test_a_series_counts_in_octets_and_leaves_the_zone_alone() -> None:
    scenario = load(LEAST.replace("[[ask]]", 'policy = [{ count = 300, record = "n{i}.{zone}" }, "x"]\n[[ask]]'), "s")
    lines = written_out(scenario.policy)
    assert (lines[0], lines[299], lines[300]) == ("n0.{zone}", "n299.{zone}", "x")
