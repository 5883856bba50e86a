"""dnsfw fmt: one canonical form, the same rules, every comment."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dnsfw.policies.format import formatted
from policy import PolicyInvalid
from policy.parse import parse
from tests.dnsfw.commands import dnsfw

MESSY = """\
\ufeff

   # top\x20\x20

A.Example.:443/tcp   # why #2


GET|HEAD   https://X.example:443/%7ea/{repo}
[ :22 ]   # hdr
b.example:443
!c.example:*
[]\r
  !c.example:*   user="root"  exe=`/a`  exe="/b c"
10.0.0.1/32:80|22|80 insecure
"""

TIDY = """\
# top

a.example  # why #2

https://x.example/~a/{repo}
[:22]  # hdr
b.example:443
!c.example:*
[]
!c.example user=root exe=/a exe="/b c"
10.0.0.1:22|80 insecure
"""


def test_canonical_form() -> None:
    assert formatted(MESSY.encode(), "p") == TIDY


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ("a.example:443", "a.example"),
        ("a.example:443/tcp", "a.example"),
        ("a.example:443|80/tcp", "a.example:80|443"),
        ("a.example:53/udp", "a.example:53/udp"),
        ("a.example:*/udp", "a.example:*/udp"),
        ("a.example/icmp", "a.example/icmp"),
        ("!a.example:*", "!a.example"),
        ("!a.example:443", "!a.example:443"),
        ("!a.example:22/tcp", "!a.example:22/tcp"),
        ("[2001:DB8::0/32]:443", "2001:db8::/32"),
        ("[2001:DB8::0]:22", "[2001:db8::]:22"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("HTTPS://A.example:443/x", "https://a.example/x"),
        ("http://a.example:80/x", "http://a.example/x"),
        ("HEAD|GET https://a.example/x", "https://a.example/x"),
        ("!* https://a.example:*/x", "!https://a.example/x"),
        ("PUT|POST https://a.example/x", "POST|PUT https://a.example/x"),
        ("[ HEAD|GET ]", "[GET|HEAD]"),
        ("[https://A.example/]", "[https://a.example]"),
        ("[ https://a.example:8443/b/  exe=/a ]", "[https://a.example:8443/b exe=/a]"),
        ("[\t]", "[]"),
        ("dns:A.example", "dns:a.example"),
        ("Bücher.example", "Bücher.example"),
        ("@include\tghcr # c", "@include ghcr  # c"),
        ('a.example arg[01]="*" user="root"', 'a.example arg[1]="*" user=root'),
        ("a.example private no-sni private within=10.0.0.0/8|::ffff:11.0.0.0/104",
         "a.example no-sni private within=10.0.0.0/8|11.0.0.0/8"),
        ("[POST]\nHEAD|GET https://a.example/\n[]\nHEAD|GET https://a.example/",
         "[POST]\nGET|HEAD https://a.example/\n[]\nhttps://a.example/"),
        ("[:8443]\nhttps://a.example:443/", "[:8443]\nhttps://a.example:443/"),
        ("#!x", "#!x"),
        ("  # {owner}", "# {owner}"),
        ("", None),
    ],
)  # fmt: skip
def test_each_form(line: str, made: str | None) -> None:
    assert formatted(line.encode(), "p") == ("" if made is None else made + "\n")


# Whole lines of every kind: headers, rules that depend on them, comments, blanks.
LINES = st.sampled_from(
    r"""
a.example:443|80~# c~A.example.   #c~[:22]~[:53/udp  exe=/a]~[GET|POST]~[HEAD|GET]~[https://x.example/b/]~[]~/p*~* /p
!/p~HEAD|GET /p~b.example.~  dns:B.example~!c.example exe="/x y"~10.0.0.1/32~{owner}.example arg={repo}~[insecure]
[:443]~{repo}.x.example  # {owner}~@include  ghcr~@registry npm~d.example user=somebody user=else~[::1]~
[2001:db8::1]:443~a.example:443~!a.example:*~https://x.example:443/a~a.example:443/tcp""".replace("\n", "~").split("~")
)


@given(st.lists(LINES, max_size=12).map("\n".join))
def test_formatting_keeps_meaning_and_comments_and_is_done_once(text: str) -> None:
    try:
        made = formatted(text.encode(), "p")
    except PolicyInvalid:
        assume(False)
    assert formatted(made.encode(), "p") == made
    assert meaning(made) == meaning(text)
    assert [line.partition("#")[2].strip() for line in made.split("\n") if "#" in line] == [
        line.partition("#")[2].strip() for line in text.split("\n") if "#" in line
    ]


def meaning(text: str) -> object:
    users = {"somebody": 1, "else": 2}
    return parse(
        text,
        "p",
        uid_of=users.__getitem__,
        load=lambda verb, name: (name, f"{verb}.{name}.example"),
        placeholders={"owner": "o", "repo": "r"},
    ).rules


@given(st.text(alphabet='ab.*:/!@#[]{}"`=|\n\t 1é\r', max_size=60))
def test_any_text_is_formatted_or_refused(text: str) -> None:
    try:
        made = formatted(text.encode(), "p")
    except PolicyInvalid:
        return
    assert formatted(made.encode(), "p") == made


def test_in_place_and_again(tmp_path: Path) -> None:
    policy = tmp_path / "p"
    policy.write_bytes(MESSY.encode())
    assert dnsfw("fmt", policy) == (0, "", "")
    assert policy.read_text() == TIDY
    written = policy.stat().st_mtime_ns
    assert dnsfw("fmt", policy).status == 0
    assert policy.stat().st_mtime_ns == written


@pytest.mark.parametrize(("option", "said"), [("--check", "not in canonical form"), ("--diff", "-A.Example.:443/tcp")])
def test_check_and_diff_write_nothing(tmp_path: Path, option: str, said: str) -> None:
    policy = tmp_path / "p"
    policy.write_bytes(MESSY.encode())
    told = dnsfw("fmt", option, policy)
    assert told.status == 1
    assert said in told.out
    assert policy.read_bytes().decode() == MESSY
    policy.write_text(TIDY)
    assert dnsfw("fmt", option, policy) == (0, "", "")


def test_standard_input_is_printed() -> None:
    assert dnsfw("fmt", "-", stdin=MESSY) == (0, TIDY, "")


def test_an_invalid_policy_is_left_alone_and_the_others_are_formatted(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.write_text("a..b\n")
    good.write_text(" a.example")
    told = dnsfw("fmt", bad, good)
    assert told.status == 2
    assert f"{bad}:1:1: error: a label is empty" in told.err
    assert (bad.read_text(), good.read_text()) == ("a..b\n", "a.example\n")


def test_what_is_not_a_policy_file(tmp_path: Path) -> None:
    assert dnsfw("fmt", tmp_path / "none").status == 2
    (tmp_path / "ci.yml").write_text("")
    assert "workflow" in dnsfw("fmt", tmp_path / "ci.yml").err
