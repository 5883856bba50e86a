"""Remarks on valid policies, and how errors and remarks are shown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy import Action, Flow, Policy, PolicyInvalid, Query, Request, address, decide
from policy.lint import lint
from policy.parse import parse
from policy.report import show_invalid, show_remark


@pytest.mark.parametrize(
    ("text", "remarks"),
    [
        ("a.example\n*.example.com\n10.0.0.0/8\n!b.example", []),
        ("a.example\na.example:22\nb.example exe=/a\nb.example exe=/b", []),
        ("*.com", ["1 every name below `.com`"]),
        ("0.0.0.0/0:22", ["1 0.0.0.0/0 is a large part"]),
        ("2000::/3", ["1 2000::/3 is a large part"]),
        ("!0.0.0.0/0", []),
        ("a.example\nA.example.", ["2 covered by p:1"]),
        ("a.x.example\n*.x.example", ["1 covered by p:2"]),
        ("derp*.x.example\n*.x.example", ["1 covered by p:2"]),
        ("*.x.example\nx.example", []),
        ("a.example exe=/a\na.example", ["1 covered by p:2"]),
        ("a.example:80\na.example:80|443", ["1 covered by p:2"]),
        ("a.example:*\na.example:53/udp", []),
        ("a.example private\na.example", ["2 covered by p:1"]),
        ("dns:a.example\na.example", ["1 covered by p:2"]),
        ("10.0.0.1\n10.0.0.0/8", ["1 covered by p:2"]),
        ("10.0.0.0/8\n2001:db8::/32", []),
        ("https://a.example/x\na.example", ["1 pointless: p:2"]),
        ("https://a.example/x/*\nhttps://a.example/x/y", ["2 covered by p:1"]),
        ("POST https://a.example/x\nhttps://a.example/x", []),
        ("!*.example\na.example", ["2 never allows anything: p:1"]),
        ("!10.0.0.0/8\n10.0.0.1:22", ["2 never allows anything: p:1"]),
        ("!a.example exe=/a\na.example", []),
        ("a.example exe=/a exe=/b", ["1 nobody can satisfy `exe=`"]),
        ("a.example arg=x arg=y", []),
        ("a.example cgroup=@host image=x", ["1 nobody can satisfy `cgroup=@host`"]),
        ("!a.example:22", ["1 denies the name's resolution"]),
        ("a.example passthrough\n!https://a.example/x", ["2 can't be enforced: p:1"]),
    ],
    ids=str,
)
def test_remarks(text: str, remarks: list[str]) -> None:
    said = [f"{remark.rule.source.line} {remark.reason}" for remark in lint(parse(text, "p"))]
    assert len(said) == len(remarks)
    assert all(one.startswith(start) for one, start in zip(said, remarks, strict=True)), said


WORDS = """
a.example  *.example  b.a.example  derp*.example  derp1.example  a.example:80|443  a.example:*  dns:a.example
https://a.example/x  https://a.example/*  https://*.example/x  10.0.0.1  10.0.0.0/8:*
!a.example  !*.example  !10.0.0.1:22  !https://a.example/x  !dns:*.example  !*.a.example:80
"""
LINES = st.lists(st.sampled_from(WORDS.split()), max_size=6)
FLOWS = [Flow(6, address("10.9.9.9"), 1, address(dst), port) for dst in ("10.0.0.1", "192.0.2.1") for port in (80, 443)]
NAMES = ["a.example", "b.a.example", "derp1.example", "c.test"]


@settings(max_examples=200)
@given(LINES)
def test_without_what_is_covered_or_pointless_nothing_changes(lines: list[str]) -> None:
    policy = parse("\n".join(lines), "p")
    for remark in lint(policy):
        if not remark.reason.startswith(("covered", "pointless")):
            continue
        rest = Policy(tuple(rule for rule in policy.rules if rule is not remark.rule))
        for flow in FLOWS:
            for name in NAMES:
                for subject in (Query(name, 1, flow), flow, Request(flow, "https", name, "GET", "/x")):
                    one, other = (decide(each, subject, None, [name]).action for each in (policy, rest))
                    assert (one is Action.DENY) == (other is Action.DENY)


def test_errors_are_shown_with_a_caret() -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse("ok.example\n\tgithub.com exee=/x\n" + "a" * 200 + "? \n\x1b[31m", "my.policy")
    assert show_invalid(caught.value).split("\n") == [
        "my.policy:2:13: error: not understood",
        "    \tgithub.com exee=/x",
        "    \t           ^",
        "    did you mean `exe=`?",
        "my.policy:3:201: error: not understood",
        "    " + "a" * 80 + "? ",
        "    " + " " * 80 + "^",
        "my.policy:4:1: error: a control character, '\\x1b'",
        "    ?[31m",
        "    ^",
        "    a policy is plain text",
        "3 errors",
    ]


def test_remarks_are_shown_the_same_way() -> None:
    remark = lint(parse("  *.com # all", "p"))[0]
    assert show_remark(remark).split("\n") == [
        "p:1:3: warning: every name below `.com`, whoever owns it",
        "      *.com # all",
        "      ^",
        "    name the hosts, or their own domain",
    ]
