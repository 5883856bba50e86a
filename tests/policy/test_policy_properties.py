"""What holds for every policy, subject and text."""

from __future__ import annotations

import string
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policy import (
    Action,
    Flow,
    Owner,
    Policy,
    PolicyInvalid,
    PolicySyntaxError,
    Query,
    Reason,
    Request,
    Rule,
    Subject,
    decide,
    render,
    suggest,
)
from policy.parse import parse

# A small world, so that rules and subjects meet.
NAMES = ["a.example", "b.a.example", "derp1.example", "x.derp1.example", "example", "c.test"]
HOSTS = [*NAMES, "*.example", "*.a.example", "derp*.example", "*.derp*.example", "*p1.example"]
ADDRESSES = ["10.0.0.1", "10.0.0.2", "192.0.2.1", "2001:db8::1"]
NETWORKS = [*ADDRESSES, "10.0.0.0/8", "0.0.0.0/0", "[2001:db8::/32]", "::/0"]
TRANSPORTS = ["", ":22", ":80|443", ":*", ":53/udp", ":22/tcp", ":*/udp", "/icmp"]
PATHS = ["/", "/x", "/x/*", "/x/*/y", "/x/v*", "/*"]
ATTRIBUTES = [
    "",
    " exe=/bin/a",
    " exe=/bin/*",
    ' exe="/bin/*"',
    " user=0",
    " arg[1]=`x y*`",
    " cgroup=@host",
    " step=s",
]
FLAGS = ["", " private", " no-sni", " within=10.0.0.0/8|2001:db8::/32"]

bracketed = st.sampled_from(NETWORKS).map(lambda place: f"[{place}]" if ":" in place and place[0] != "[" else place)
sites = st.builds(str.__add__, st.one_of(st.sampled_from(HOSTS), bracketed), st.sampled_from(TRANSPORTS))
urls = st.builds(
    "{}{}://{}{}{}".format,
    st.sampled_from(["", "POST ", "GET|PUT ", "* "]),
    st.sampled_from(["https", "http"]),
    st.sampled_from(HOSTS),
    st.sampled_from(["", ":8443", ":*", ":80|443"]),
    st.sampled_from(PATHS),
)
targets = st.one_of(sites, urls, st.sampled_from(HOSTS).map("dns:{}".format))
denies = st.builds("!{}{}".format, targets, st.sampled_from(ATTRIBUTES))
flagged = st.builds("{}{}{}".format, st.sampled_from(HOSTS), st.sampled_from(ATTRIBUTES), st.sampled_from(FLAGS))
allows = st.one_of(st.builds(str.__add__, targets, st.sampled_from(ATTRIBUTES)), flagged)
policies = st.lists(st.one_of(allows, denies), max_size=6)

addresses = st.sampled_from(ADDRESSES).map(lambda text: IPv6Address(text) if ":" in text else IPv4Address(text))
flows = st.builds(
    Flow,
    proto=st.sampled_from([1, 6, 17, 58, 132]),
    src=st.just(IPv4Address("10.9.9.9")),
    sport=st.just(40000),
    dst=addresses,
    dport=st.sampled_from([0, 22, 53, 80, 443, 8443]),
)
tcp = flows.filter(lambda flow: flow.proto == 6 and flow.dport != 0)
queries = st.builds(Query, name=st.sampled_from(NAMES), qtype=st.just(1), client=flows)
requests = st.builds(
    Request,
    flow=tcp,
    scheme=st.sampled_from(["https", "http"]),
    host=st.sampled_from(NAMES),
    method=st.sampled_from(["GET", "POST", "PUT"]),
    path=st.sampled_from(["/", "/x", "/x/1", "/x/1/y", "/x/v1"]),
)
subjects: st.SearchStrategy[Subject] = st.one_of(queries, flows, requests)
owners = st.none() | st.builds(
    Owner,
    pid=st.just(1),
    start_time=st.just(1),
    uid=st.sampled_from([0, 5]),
    exe=st.sampled_from(["/bin/a", "/bin/b", ""]),
    argv=st.sampled_from([("a",), ("a", "x y z")]),
    cgroup=st.just("/"),
    container=st.sampled_from([None, "c"]),
    step=st.sampled_from([None, "s"]),
    complete=st.booleans(),
)
bound = st.lists(st.sampled_from(NAMES), max_size=3, unique=True)

WIDTH = {Action.DENY: 0, Action.INSPECT: 1, Action.PEEK: 2, Action.ALLOW: 3}


def read(lines: list[str]) -> Policy:
    return parse("\n".join(lines), "p")


@given(policies, denies, subjects, owners, bound, st.data())
def test_a_deny_never_widens(  # noqa: PLR0917 - drawn arguments
    lines: list[str], deny: str, subject: Subject, owner: Owner | None, names: list[str], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(lines)))
    before = decide(read(lines), subject, owner, names)
    after = decide(read([*lines[:place], deny, *lines[place:]]), subject, owner, names)
    assert WIDTH[after.action] <= WIDTH[before.action]


@given(policies, allows, subjects, owners, bound)
def test_an_allow_never_denies(
    lines: list[str], allow: str, subject: Subject, owner: Owner | None, names: list[str]
) -> None:
    before = decide(read(lines), subject, owner, names)
    after = decide(read([*lines, allow]), subject, owner, names)
    assert before.action is Action.DENY or after.action is not Action.DENY


@given(policies, subjects, owners, bound, st.randoms(use_true_random=False), st.booleans())
def test_order_is_irrelevant(  # noqa: PLR0917 - drawn arguments
    lines: list[str], subject: Subject, owner: Owner | None, names: list[str], random: object, peek: bool
) -> None:
    shuffled = list(lines)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    one, other = (decide(read(each), subject, owner, names, peek=peek) for each in (lines, shuffled))
    assert (one.action, one.reason) == (other.action, other.reason)


def otherwise(text: str) -> str:
    return text.swapcase() + "."


@given(policies, queries, requests, owners, bound)
def test_case_and_trailing_dot_of_a_subject_change_nothing(
    lines: list[str], query: Query, request: Request, owner: Owner | None, names: list[str]
) -> None:
    policy = read(lines)
    names = [*names, request.host]
    loud = Request(request.flow, request.scheme.upper(), otherwise(request.host), request.method, request.path)
    assert decide(policy, Query(otherwise(query.name), 1, query.client), owner, []) == decide(policy, query, owner, [])
    assert decide(policy, loud, owner, names) == decide(policy, request, owner, names)


@given(policies, subjects, owners, bound)
def test_case_and_trailing_dot_of_a_rule_change_nothing(
    lines: list[str], subject: Subject, owner: Owner | None, names: list[str]
) -> None:
    loud = [line.replace("example", "EXAMPLE.") for line in lines]
    assert decide(read(loud), subject, owner, names) == decide(read(lines), subject, owner, names)


@given(policies)
def test_render_undoes_parse(lines: list[str]) -> None:
    policy = read(lines)
    assert read([render(rule) for rule in policy.rules]) == policy


@given(policies)
def test_rendering_is_canonical(lines: list[str]) -> None:
    rendered = [render(rule) for rule in read(lines).rules]
    assert [render(rule) for rule in read(rendered).rules] == rendered


@given(policies, subjects, owners, bound)
def test_what_is_suggested_allows(lines: list[str], subject: Subject, owner: Owner | None, names: list[str]) -> None:
    if isinstance(subject, Request):
        names = [*names, subject.host]
    policy = read(lines)
    if decide(policy, subject, owner, names).action is not Action.DENY:
        return
    line = suggest(subject, owner, names)
    if not line:
        assert isinstance(subject, Flow)
        assert subject.proto == 132 or subject.dport == 0
        return
    after = decide(read([*lines, line]), subject, owner, names)
    assert after.action is not Action.DENY or after.reason is Reason.DENY_RULE


@pytest.mark.parametrize(
    ("subject", "names", "line"),
    [
        (Query("evil.example", 1, Flow(17, IPv4Address(1), 1, IPv4Address(2), 53)), (), "evil.example"),
        (Query("1.2.3", 1, Flow(17, IPv4Address(1), 1, IPv4Address(2), 53)), (), ""),
        (Query("a b", 1, Flow(17, IPv4Address(1), 1, IPv4Address(2), 53)), (), ""),
        (Flow(6, IPv4Address(1), 1, IPv4Address("203.0.113.9"), 443), (), "203.0.113.9"),
        (Flow(6, IPv4Address(1), 1, IPv4Address("203.0.113.9"), 4444), (), "203.0.113.9:4444"),
        (Flow(6, IPv6Address(1), 1, IPv6Address("2001:db8::9"), 443), (), "2001:db8::9"),
        (Flow(17, IPv4Address(1), 1, IPv4Address("203.0.113.9"), 53), (), "203.0.113.9:53/udp"),
        (Flow(1, IPv4Address(1), 0, IPv4Address("203.0.113.9"), 0), (), "203.0.113.9/icmp"),
        (Flow(58, IPv6Address(1), 0, IPv6Address("2001:db8::9"), 0), (), "[2001:db8::9]/icmp"),
        (Flow(6, IPv4Address(1), 1, IPv4Address("203.0.113.9"), 22), ("a.example", "b.example"), "a.example:22"),
        (Flow(132, IPv4Address(1), 1, IPv4Address("203.0.113.9"), 22), (), ""),
    ],
    ids=str,
)  # fmt: skip
def test_suggestions(subject: Subject, names: tuple[str, ...], line: str) -> None:
    assert suggest(subject, None, names) == line


LINES = st.lists(st.one_of(allows, denies, st.text(max_size=40), st.text('[]!*:/|.="`#@{} \t\r\0ab1', max_size=30)))


@settings(max_examples=300)
@given(st.one_of(LINES.map("\n".join), st.binary(max_size=200)))
@example("[")
@example("{owner}")
@example("\ud800.example")
@example("a\u3002b.example")
def test_any_text_gives_rules_or_errors(text: str | bytes) -> None:
    rules: tuple[Rule, ...] = ()
    errors: tuple[PolicySyntaxError, ...] = ()
    try:
        rules = parse(text, "p", placeholders={"owner": "o"}).rules
    except PolicyInvalid as invalid:
        errors = invalid.errors
        assert errors
    lines = (text if isinstance(text, str) else text.decode(errors="replace")).count("\n") + 1
    assert all(1 <= error.line <= lines and error.column >= 1 and error.reason for error in errors)
    assert all(1 <= rule.source.line <= lines for rule in rules)


@settings(max_examples=300)
@given(policies, st.text(), st.text(), st.text(), st.text(string.ascii_letters, max_size=3), flows, owners)
def test_any_subject_gets_a_decision(  # noqa: PLR0917 - drawn arguments
    lines: list[str], name: str, path: str, host: str, method: str, flow: Flow, owner: Owner | None
) -> None:
    policy = read(lines)
    for subject in (Query(name, 1, flow), Request(flow, "https", host, method, path), flow):
        decision = decide(policy, subject, owner, [name, host])
        assert (decision.action is Action.DENY) == (decision.reason is not Reason.ALLOW_RULE)
        assert (decision.rule is None) <= (decision.action is Action.DENY)
