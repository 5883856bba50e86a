"""The gate's end of the conversation with the proxy: octets in, decisions and octets out."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress

import pytest

from dnsfw.engine.gate import Gate
from dnsfw.engine.requests import Conversation
from dnsfw.journal.records import Entry, to_record
from dnsfw.journal.tally import Tally, summary
from policy import Action, Bindings, Flow, Owner, Reason, Request, address
from policy.parse import parse
from proxy.messages import (
    Asked,
    Closed,
    Course,
    Frames,
    FromGate,
    FromProxy,
    Greeted,
    Hello,
    Judged,
    MessageError,
    Opened,
    Reported,
    Steered,
    Trouble,
    Unreadable,
    encode,
    read_from_gate,
)

SHARED = address("198.51.100.80")
OWNER = Owner(pid=7, start_time=70, uid=1000, exe="/usr/bin/git", argv=("git", "push"), cgroup="/job")
POLICY = """\
https://api.example/repos/*
POST https://api.example/upload
plain.example exe=/usr/bin/git
kept.example passthrough
https://kept.example/*
https://lax.example/* insecure
http://web.example/*
!never.example
https://never.example/*
"""
NAMES = ("api.example", "plain.example", "kept.example", "lax.example", "web.example", "never.example")
OPENED = Opened(1, "10.0.0.2", 40000, str(SHARED), 443)


def client_hello(name: str | None) -> bytes:
    """OpenSSL's, in one record."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    return sent.read()


class Talk:
    """A conversation that has begun, with one connection open, and what the gate recorded of it."""

    def __init__(
        self, *, audit: bool = False, owner_of: Callable[[Flow], Owner | None] = lambda _: OWNER, broken_at: str = ""
    ) -> None:
        self.entries: list[Entry] = []
        self._broken_at = broken_at
        bindings = Bindings()
        for name in NAMES:
            bindings.bind(name, [(SHARED, 60.0)], 0.0)
        gate = Gate(parse(POLICY, "p"), bindings, owner_of, self._record, lambda: 1.0, audit)
        self.conversation = Conversation(gate)
        assert self.say(Hello(1), OPENED) == []

    def _record(self, entry: Entry) -> None:
        if isinstance(entry.subject, Request) and entry.subject.path == self._broken_at:
            raise RuntimeError("broken on purpose")
        self.entries.append(entry)

    def say(self, *told: FromProxy) -> list[FromGate]:
        replies = self.conversation.take(b"".join(map(encode, told)))
        return [read_from_gate(body) for body in Frames().take(replies)]

    def greet(self, name: str | None) -> Steered:
        (answer,) = self.say(Greeted(1, client_hello(name)))
        assert isinstance(answer, Steered)
        return answer

    def ask(self, method: str, host: str, path: str, scheme: str = "https") -> str:
        """ "" for yes, else the reason."""
        (answer,) = self.say(Asked(1, scheme, host, method, path))
        assert isinstance(answer, Judged)
        return answer.refusal.reason if answer.refusal else ""


@pytest.mark.parametrize(
    ("name", "course"),
    [
        ("api.example", Course.DECRYPT),
        ("API.example", Course.DECRYPT),
        ("lax.example", Course.DECRYPT),
        ("plain.example", Course.TUNNEL),
        ("kept.example", Course.TUNNEL),
        ("never.example", Course.REFUSE),
        ("web.example", Course.REFUSE),  # its rule is about port 80
        ("other.example", Course.REFUSE),
        (None, Course.REFUSE),
    ],
)
def test_the_server_name_alone_decides_who_is_looked_into(name: str | None, course: Course) -> None:
    talk = Talk()
    answer = talk.greet(name)
    assert (answer.course, answer.insecure) == (course, name == "lax.example")
    assert (answer.refusal is not None) == (course is Course.REFUSE)
    assert len(talk.entries) == (course is not Course.DECRYPT)


def test_a_tunnel_is_for_the_process_that_its_rule_is_about() -> None:
    answer = Talk(owner_of=lambda _: None).greet("plain.example")
    assert answer.course is Course.REFUSE
    assert answer.refusal is not None
    assert answer.refusal.reason == Reason.OWNER


def test_a_client_hello_that_can_t_be_read_is_refused() -> None:
    (answer,) = Talk().say(Greeted(1, b"\x16\x03\x03\x00\x04\x02\x00\x00\x00"))
    assert isinstance(answer, Steered)
    assert answer.course is Course.REFUSE


@pytest.mark.parametrize(
    ("method", "host", "path", "reason"),
    [
        ("GET", "api.example", "/repos/x", ""),
        ("GET", "api.example:443", "/repos/x", ""),
        ("POST", "api.example", "/upload", ""),
        ("POST", "api.example", "/repos/x", "method"),
        ("GET", "api.example", "/other", "path"),
        ("GET", "api.example", "/repos/../other", "malformed"),
        ("GET", "kept.example", "/repos/x", "no-binding"),  # bound to the address, but not what the client greeted
        ("GET", str(SHARED), "/repos/x", "no-binding"),
        ("GET", "api.example:8443", "/repos/x", "malformed"),
    ],
)
def test_every_request_of_a_connection_is_judged(method: str, host: str, path: str, reason: str) -> None:
    talk = Talk()
    talk.greet("api.example")
    assert talk.ask(method, host, path) == reason
    assert talk.ask("GET", "api.example", "/repos/y") == ""
    assert len(talk.entries) == 2


def test_without_tls_any_name_of_the_address_may_be_asked() -> None:
    talk = Talk()
    talk.say(Closed(1), Opened(1, "10.0.0.2", 40001, str(SHARED), 80))
    assert talk.ask("GET", "web.example", "/", "http") == ""
    assert talk.ask("GET", "api.example", "/repos/x", "http") == "port"


def test_a_refusal_says_what_and_why_and_the_line_that_would_allow_it() -> None:
    talk = Talk()
    talk.greet("api.example")
    (answer,) = talk.say(Asked(1, "https", "api.example", "DELETE", "/repos/x"))
    assert isinstance(answer, Judged)
    assert answer.refusal is not None
    assert answer.refusal.what == "DELETE https://api.example/repos/x"
    assert "method" in answer.refusal.why
    assert "https://api.example/repos/*" in answer.refusal.why
    assert answer.refusal.line == "DELETE https://api.example/repos/x"


def test_audit_lets_through_and_records_what_enforcing_would_have_said() -> None:
    talk = Talk(audit=True)
    assert talk.greet("api.example").course is Course.DECRYPT
    assert talk.ask("DELETE", "api.example", "/repos/x") == ""
    assert talk.say(Unreadable(1, "two Host fields")) == [Judged()]
    assert [entry.decision.action for entry in talk.entries] == [Action.DENY] * 2
    assert Talk(audit=True).greet("other.example").course is Course.TUNNEL


def test_a_client_that_refuses_our_certificate_is_told_of_in_journal_and_summary() -> None:
    talk = Talk()
    talk.greet("api.example")
    talk.say(Reported(1, Trouble.PINNED, "tlsv1 alert unknown ca"))
    record = to_record(talk.entries[-1], 0.0, "enforce")
    assert (record.decision, record.reason, record.names) == ("deny", "pinned", ("api.example",))
    assert record.fault == "tlsv1 alert unknown ca"
    tally = Tally()
    tally.take(talk.entries[-1])
    assert "to allow it: api.example passthrough" in summary(tally, [], audit=False)


def test_a_request_s_record_has_its_url_and_no_more() -> None:
    talk = Talk()
    talk.greet("api.example")
    talk.ask("GET", "api.example", "/repos/x")
    subject = to_record(talk.entries[-1], 0.0, "enforce").subject
    url = (subject.kind, subject.scheme, subject.host, subject.method, subject.path)
    assert url == ("request", "https", "api.example", "GET", "/repos/x")
    assert (subject.dst, subject.dport) == (str(SHARED), 443)


def test_a_judgement_that_breaks_denies_that_request_alone() -> None:
    """A6."""
    talk = Talk(broken_at="/repos/broken")
    talk.greet("api.example")
    assert talk.ask("GET", "api.example", "/repos/broken") == "fault"
    assert talk.entries[-1].fault == "RuntimeError: broken on purpose"
    assert talk.ask("GET", "api.example", "/repos/x") == ""


@pytest.mark.parametrize(
    "told",
    [
        [Asked(2, "https", "api.example", "GET", "/")],
        [OPENED],
        [Hello(1)],
        [Opened(2, "10.0.0.2", 1, "nowhere", 443)],
        [Opened(number, "10.0.0.2", number, str(SHARED), 443) for number in range(2, 5_000)],
    ],
    ids=["not open", "open already", "hello again", "no address", "too many"],
)
def test_what_no_proxy_of_ours_says_ends_the_conversation(told: list[FromProxy]) -> None:
    with pytest.raises(MessageError):
        Talk().say(*told)


@pytest.mark.parametrize(
    "raw",
    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", encode(Hello(2)), encode(Judged()), encode(OPENED)],
    ids=["too long", "not a message", "another version", "a gate's message", "no hello"],
)
def test_what_a_conversation_can_t_begin_with(raw: bytes) -> None:
    with pytest.raises(MessageError):
        Conversation(Gate(parse("", "p"), Bindings(), lambda _: None, lambda _: None, lambda: 0.0)).take(raw)
