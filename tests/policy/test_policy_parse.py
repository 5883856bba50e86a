"""What a policy's text may say, and how it is told what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy import Flag, Kind, Policy, PolicyInvalid, PolicySyntaxError, render
from policy.parse import ERROR_LIMIT, LINE_LIMIT, TEXT_LIMIT, parse

GOLDEN = Path(__file__).parent / "errors"


def errors(text: str | bytes, **outside: object) -> list[PolicySyntaxError]:
    with pytest.raises(PolicyInvalid) as caught:
        parse(text, "p", **outside)  # type: ignore[arg-type]  # the tests' own keyword arguments
    return list(caught.value.errors)


def test_errors_are_told_all_at_once_each_with_its_place() -> None:
    """errors/invalid.policy, line for line against errors/invalid.txt."""
    told = [str(error) for error in errors((GOLDEN / "invalid.policy").read_bytes(), uid_of={}.__getitem__)]
    assert "\n".join(told) + "\n" == (GOLDEN / "invalid.txt").read_text()


def test_every_line_of_the_invalid_policy_is_an_error() -> None:
    lines = (GOLDEN / "invalid.policy").read_text().split("\n")
    wrong = {error.line for error in errors("\n".join(lines), uid_of={}.__getitem__)}
    silent = [
        line for number, line in enumerate(lines, 1) if line and not line.startswith(("#", "[")) and number not in wrong
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("", []),
        ("\n\n  \n# c\n\t# c", []),
        ("a.b#c.d", None),
        ("  a.example  # why", ["a.example"]),
        ("\ta.example\t\t:22", None),
        ("\ufeffa.example\r\nb.example\r\n", ["a.example", "b.example"]),
        ("a.example\rb.example", None),
        ("A.Example.", ["a.example"]),
        ("a.example:443/tcp", ["a.example"]),
        ("a.example:443|80|443", ["a.example:80|443"]),
        ("!a.example:*", ["!a.example"]),
        ("!a.example:22/tcp", ["!a.example:22/tcp"]),
        ("GET|HEAD https://a.example:443/%7Ex", ["https://a.example/~x"]),
        ("HTTPS://A.example/X", ["https://a.example/X"]),
        ("[2606:50C0:0::1]", ["2606:50c0::1"]),
        ("[2606:50C0:0::1]:22", ["[2606:50c0::1]:22"]),
        ('a.example exe="/a b" arg=`*`', ['a.example exe="/a b" arg=*']),
        ('a.example arg="*" arg[2]=`a b*`', ['a.example arg="*" arg[2]=`a b*`']),
        ("a.example private no-sni", ["a.example no-sni private"]),
        ('a.example arg="# no comment" # comment', ['a.example arg="# no comment"']),
        ("[\t]\na.example", ["a.example"]),
        ("[insecure exe=/x]\nhttps://a.example/", ["https://a.example/ exe=/x insecure"]),
        ("[within=10.0.0.0/8 private]\na.example\nb.example within=::/0",
         ["a.example private within=10.0.0.0/8", "b.example private within=::/0"]),
    ],
)  # fmt: skip
def test_reads_as(text: str, rendered: list[str] | None) -> None:
    """None: refused. Else the rules, each in canonical form."""
    if rendered is None:
        assert errors(text)
    else:
        assert [render(rule) for rule in parse(text, "p").rules] == rendered


def test_a_rule_knows_its_source() -> None:
    rule = parse("# top\n\n  github.com:22  # ssh\r\n", "etc/policy").rules[0]
    assert (rule.source.file, rule.source.line, rule.source.column) == ("etc/policy", 3, 3)
    assert rule.source.text == "  github.com:22  # ssh"


def test_flags_and_kinds() -> None:
    rules = parse("a.example passthrough\nhttps://a.example/ insecure\ndns:a.example\n10.0.0.1 insecure", "p").rules
    assert [rule.kind for rule in rules] == [Kind.HOST, Kind.URL, Kind.DNS, Kind.ADDRESS]
    assert [rule.flags for rule in rules] == [{Flag.PASSTHROUGH}, {Flag.INSECURE}, set(), {Flag.INSECURE}]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        (b"a.example\nb.ex\xff", 2, 5),
        (b"\xff\xfea\x00", 1, 1),
        (b"\xef\xbb\xbfa\xff", 1, 2),
        ("a.example\n\n\0", 3, 1),
        ("a.example\n\t[", 2, 3),
        ("a" * (LINE_LIMIT + 1), 1, LINE_LIMIT + 1),
        ("a" * (TEXT_LIMIT + 1), 1, 1),
        ("a.example\n" * 1_000_000, 1, 1),  # 10 MB
        ("a.example exe=\x1b[0m", 1, 15),
        ("a.example\u2028b.example", 1, 10),
    ],
    ids=["bytes", "utf16", "mark", "nul", "bracket", "line", "text", "10MB", "escape", "separator"],
)
def test_hostile_text_is_refused_at_its_place(text: str | bytes, line: int, column: int) -> None:
    first = errors(text)[0]
    assert (first.line, first.column) == (line, column)
    assert first.reason


def test_errors_are_bounded() -> None:
    told = errors("?\n" * (ERROR_LIMIT + 500))
    assert len(told) == ERROR_LIMIT + 1
    assert "the rest is not read" in told[-1].reason


def read(files: dict[str, str | bytes], text: str) -> Policy:
    def load(verb: str, name: str) -> tuple[str, str | bytes]:
        return f"{verb}/{name}", files[f"{verb} {name}"]

    return parse(text, "main", load=load)


def test_include_takes_in_rules_with_their_own_source_and_no_header() -> None:
    files: dict[str, str | bytes] = {"include base": "[:22]\na.example", "registry npm": b"r.example"}
    policy = read(files, "[:80]\n@include base\nb.example\n@registry npm\n@include base")
    assert [render(rule) for rule in policy.rules] == ["a.example:22", "b.example:80", "r.example"]
    assert [str(rule.source) for rule in policy.rules] == ["include/base:2", "main:3", "registry/npm:1"]


@pytest.mark.parametrize(
    ("files", "place", "reason"),
    [
        ({}, "main:1:10", "nothing to take in"),
        ({"include a": "@include a"}, "include/a:1:10", "includes itself"),
        ({"include a": "@include b", "include b": "\n@include a"}, "include/b:2:10", "includes itself"),
        ({"include a": "bad!"}, "include/a:1:4", "not understood"),
        ({"include a": b"\xff"}, "include/a:1:1", "not UTF-8"),
        ({f"include {a}": f"@include {chr(ord(a) + 1)}" for a in "abcdefghi"}, "include/g:1:10", "deep"),
    ],
    ids=["missing", "self", "loop", "error inside", "bytes inside", "deep"],
)  # fmt: skip
def test_include_errors(files: dict[str, str | bytes], place: str, reason: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        read(files, "@include a")
    first = caught.value.errors[0]
    assert str(first).startswith(place)
    assert reason in first.reason


REPO = {"owner": "Octo-Org", "repo": "hello.world_1"}


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("https://api.example/repos/{owner}/{repo}/*", "https://api.example/repos/Octo-Org/hello.world_1/*"),
        ("{owner}.pages.example", "octo-org.pages.example"),
        ('a.example arg="{owner}/{repo}"', "a.example arg=Octo-Org/hello.world_1"),
        ("a.example # {nobody}", "a.example"),
    ],
)
def test_placeholders(text: str, rendered: str) -> None:
    assert render(parse(text, "p", placeholders=REPO).rules[0]) == rendered


@pytest.mark.parametrize(
    ("text", "values", "column"),
    [
        ("https://a.example/{owner}/x", {}, 19),
        ("https://a.example/{owner}/{repo}", {"owner": "o"}, 27),
        ("https://a.example/{owner}/x", {"owner": "*"}, 19),
        ("https://a.example/{owner}/x", {"owner": "a/b"}, 19),
        ("https://a.example/{owner}/x", {"owner": "a\nevil.example"}, 19),
        ("https://a.example/{owner}/x", {"owner": ".."}, 19),
        ("https://a.example/{owner}/x", {"owner": ""}, 19),
        ("a.example exe={owner}", {"owner": "a b"}, 15),
        ("{owner}.example x=1", {"owner": "octo-organisation"}, 17),
        ("{owner}_.-./.example", {"owner": "octo"}, 1),
        ("a.example/{unknown}", REPO, 10),
        ("{owner}.{repo}\0", REPO, 15),
        ("{owner}.example{repo" + "x" * LINE_LIMIT, {"owner": "o"}, LINE_LIMIT + 7),
    ],
)
def test_placeholders_cannot_say_anything(text: str, values: dict[str, str], column: int) -> None:
    assert [error.column for error in errors(text, placeholders=values)] == [column]


def test_a_comment_needs_no_value() -> None:
    assert parse("# {owner}\na.example # {repo}", "p").rules


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "unit", ["*", "a*", ".", "a.", "|", ":1|", "f:", "/", "/*a", "[", '"', " x", "{owner}", "GET|", "é.", "a=", "dns:"]
)
@pytest.mark.parametrize("start", ["", "a.example ", "https://a.example/", "["])
def test_a_long_line_costs_no_more_than_its_length(start: str, unit: str) -> None:
    """Ten lines as long as may be: backtracking in the grammar or in a hint would run into the time-out."""
    line = (start + unit * LINE_LIMIT)[:LINE_LIMIT]
    for _ in range(10):
        try:
            parse(line, "p")
        except PolicyInvalid as invalid:
            assert invalid.errors  # noqa: PT017 - either outcome will do, soon
