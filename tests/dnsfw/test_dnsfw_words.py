"""What people read: the summary, and that nothing in it can steer a terminal."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsfw.channel import Finished, channel_pair
from dnsfw.journal.records import Entry
from dnsfw.journal.tally import Tally, printable, summary
from policy import Action, Decision, Flow, Owner, Query, Reason, Seen, Spoken
from policy.parse import parse

LOOPBACK = ip_address("127.0.0.1")
CLIENT = Flow(17, LOOPBACK, 40_000, LOOPBACK, 53053)
NPM = Owner(4711, 1, 1000, "/usr/bin/node", ("node", "postinstall.js"), "/job", "node")
(ALLOWING,) = parse("example.com:22\n", "a.policy").rules


def denied(subject: Query | Flow | None, reason: Reason = Reason.NO_RULE, owner: Owner | None = NPM) -> Entry:
    rule = ALLOWING if reason in (Reason.PORT, Reason.OWNER) else None
    fault = "RuntimeError: broken" if reason is Reason.FAULT else None
    names = ("example.com",) if reason is Reason.PORT else ()
    return Entry(subject, Decision(Action.DENY, reason, rule, None), owner, names, fault=fault)


def flow(proto: int, dst: str, dport: int = 0) -> Flow:
    return Flow(proto, ip_address("198.18.0.2"), 1, ip_address(dst), dport)


def spoken(reason: Reason, seen: Seen) -> Entry:
    """Of a client that an address of example.com's was opened for."""
    decision = Decision(Action.DENY, reason, None, seen.name)
    return Entry(flow(6, "192.0.2.1", 443), decision, NPM, ("example.com",), seen=seen)


def told(*entries: Entry, trouble: tuple[str, ...] = (), audit: bool = False) -> list[str]:
    tally = Tally()
    for entry in entries:
        tally.take(entry)
    return summary(tally, list(trouble), audit=audit).split("\n")


@pytest.mark.parametrize(
    ("entry", "lines"),
    [
        (
            denied(Query("evil.test", 1, CLIENT)),
            [
                "  ✗ resolve evil.test  by /usr/bin/node postinstall.js (pid 4711)",
                "      no rule names it",
                "      to allow it: evil.test",
            ],
        ),
        (
            denied(flow(6, "2001:db8::1", 443), Reason.NO_BINDING),
            [
                "  ✗ tcp [2001:db8::1]:443  by /usr/bin/node postinstall.js (pid 4711)",
                "      no allowed name was resolved to this address",
                "      to allow it: 2001:db8::1",
            ],
        ),
        (
            denied(flow(6, "192.0.2.1", 443), Reason.PORT),
            [
                "  ✗ tcp 192.0.2.1:443 (example.com)  by /usr/bin/node postinstall.js (pid 4711)",
                "      a rule allows this destination, but not this port or protocol: example.com:22 (a.policy:1)",
                "      to allow it: example.com",
            ],
        ),
        (
            denied(flow(1, "192.0.2.1"), Reason.NO_BINDING, None),
            [
                "  ✗ ping 192.0.2.1  by an unknown process",
                "      no allowed name was resolved to this address",
                "      to allow it: 192.0.2.1/icmp",
            ],
        ),
        (
            denied(flow(132, "192.0.2.1"), Reason.NO_BINDING, None),
            [
                "  ✗ IP protocol 132 to 192.0.2.1  by an unknown process",
                "      no allowed name was resolved to this address",
            ],
        ),
        (
            spoken(Reason.NO_RULE, Seen(Spoken.TLS, "evil.test")),
            [
                "  ✗ tcp 192.0.2.1:443 (example.com) asked for evil.test  by /usr/bin/node postinstall.js (pid 4711)",
                "      no rule names it",
                "      to allow it: evil.test",
            ],
        ),
        (
            spoken(Reason.NAME, Seen(Spoken.HTTP, "b.example")),
            [
                "  ✗ tcp 192.0.2.1:443 (example.com) asked for b.example  by /usr/bin/node postinstall.js (pid 4711)",
                "      the client asked for an allowed host, but at an address that this host was not resolved to",
            ],
        ),
        (
            spoken(Reason.NO_NAME, Seen(Spoken.OTHER, None)),
            [
                "  ✗ tcp 192.0.2.1:443 (example.com)  by /usr/bin/node postinstall.js (pid 4711)",
                "      the client did not say which of the address's hosts it wants",
                "      to allow it: example.com no-sni",
            ],
        ),
        (
            denied(None, Reason.FAULT, None),
            [
                "  ✗ an unreadable packet  by an unknown process",
                "      dnsfw itself failed while judging it: RuntimeError: broken",
            ],
        ),
    ],
    ids=["question", "address", "port", "ping", "protocol", "name", "elsewhere", "nameless", "fault"],
)
def test_a_denial(entry: Entry, lines: list[str]) -> None:
    assert told(entry) == ["dnsfw: 1 denied, 0 allowed", *lines]


def test_like_denials_are_one_line_and_the_most_frequent_comes_first() -> None:
    often, once = denied(Query("often.test", 1, CLIENT)), denied(Query("once.test", 1, CLIENT))
    lines = told(once, often, often, often)
    assert lines[0] == "dnsfw: 4 denied, 0 allowed"
    assert lines[1].startswith("  ✗ resolve often.test ×3  by ")
    assert lines[4].startswith("  ✗ resolve once.test  by ")


def test_a_connection_is_counted_once_when_its_client_has_spoken() -> None:
    opened = Entry(flow(6, "192.0.2.1", 443), Decision(Action.PEEK, Reason.ALLOW_RULE, ALLOWING, None), NPM, ())
    allowed = opened.but(decision=opened.decision.but(action=Action.ALLOW))
    assert told(opened, allowed) == ["dnsfw: nothing denied, 1 allowed"]


def test_nothing_denied_audit_and_trouble() -> None:
    assert told() == ["dnsfw: nothing denied, 0 allowed"]
    assert told(audit=True) == ["dnsfw: nothing would have been denied, 0 allowed"]
    assert told(trouble=("7 records lost",)) == ["dnsfw: nothing denied, 0 allowed", "  ! 7 records lost"]


def test_it_is_bounded_and_says_what_it_left_out() -> None:
    lines = told(*(denied(Query(f"n{number}.test", 1, CLIENT)) for number in range(3000)))
    assert lines[0] == "dnsfw: 3000 denied, 0 allowed"
    assert len(lines) == 1 + 20 * 3 + 1
    assert lines[-1] == "  … and 2980 more; --journal FILE keeps them all"


def test_the_longest_summary_fits_a_message_to_the_supervisor() -> None:
    """Or a process with a long enough path, of characters of four octets, would take the summary away."""
    path = "/" + "\U0001f600" * 4095
    longest = ".".join(["x" * 63] * 3 + ["y" * 56])
    owner = Owner(1, 1, 0, path, (path,) * 9, "/", "")
    said = told(
        *(denied(Query(f"{number:04}.{longest}", 1, CLIENT), owner=owner) for number in range(20)),
        *(Entry(None, Decision(Action.DENY, Reason.FAULT, None, None), owner, (), fault=path * 9) for _ in range(20)),
        trouble=(path,) * 5,
    )
    assert f"      to allow it: 0001.{longest}" in said  # whole: a line that was cut would allow nothing
    ours, theirs = channel_pair()
    ours.send(Finished(1, "\n".join(said)))
    assert theirs.receive(1.0) == Finished(1, "\n".join(said))
    ours.close()
    theirs.close()


@settings(deadline=None)  # a busy machine proves nothing
@given(st.text())
def test_printable_is_printable(text: str) -> None:
    assert printable(text).isprintable()


@settings(deadline=None)  # a busy machine proves nothing
@given(st.text(st.characters(max_codepoint=127, categories=["L", "N", "P", "S", "Zs"])))
def test_printable_leaves_plain_text_alone(text: str) -> None:
    assert printable(text) == text


hostile = st.text(st.sampled_from("a\x1b[31m\x07\r\n\t\x9b\u202e\u2028\x00\x7f"), min_size=1)


@settings(deadline=None)  # a busy machine proves nothing
@given(hostile, hostile, hostile, hostile)
def test_no_line_can_steer_a_terminal(exe: str, argument: str, name: str, error: str) -> None:
    """Whatever a process calls itself, asks for, or brings us to say: escapes, returns, bells, bidirectional tricks."""
    owner = Owner(1, 1, 0, exe, ("x", argument), "/", exe)
    broken = Entry(None, Decision(Action.DENY, Reason.FAULT, None, None), owner, (), fault=error)
    named = Entry(flow(6, "192.0.2.1", 1), Decision(Action.DENY, Reason.NO_RULE, None, None), owner, (name,))
    lines = told(denied(Query(name, 1, CLIENT), owner=owner), broken, named)
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith(("dnsfw: 3 denied", "  ✗ ", "      ")) for line in lines)
