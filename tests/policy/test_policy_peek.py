"""What a flow's first look decides, PEEK for hosts; what its client's words do; which names the proxy leaves alone."""

from __future__ import annotations

import pytest

from policy import Action, Flow, Reason, Seen, Spoken, address, decide, greeted, identified
from policy.parse import parse

POLICY = parse(
    """
    site.example:443|80
    time.example:123/udp
    ping.example/icmp
    10.0.0.0/8
    api.example passthrough
    https://api.example/x
    https://web.example/*
    plain.example
    !https://plain.example/secret
    """,
    "p",
)


def flow(proto: int, port: int, dst: str = "192.0.2.1") -> Flow:
    return Flow(proto, address("10.9.9.9"), 40000, address(dst), port)


@pytest.mark.parametrize(
    ("subject", "names", "action"),
    [
        (flow(6, 443), ["site.example"], Action.PEEK),
        (flow(6, 80), ["site.example"], Action.PEEK),
        (flow(17, 123), ["time.example"], Action.PEEK),
        (flow(1, 0, "192.0.2.7"), ["ping.example"], Action.ALLOW),
        (flow(6, 443, "10.0.0.1"), [], Action.ALLOW),
        (flow(6, 443, "10.0.0.1"), ["site.example"], Action.ALLOW),
        (flow(6, 443), ["api.example"], Action.PEEK),
        (flow(6, 443), ["web.example", "site.example"], Action.INSPECT),
        (flow(6, 443), ["plain.example"], Action.INSPECT),
        (flow(6, 22), ["site.example"], Action.DENY),
    ],
)
def test_peek(subject: Flow, names: list[str], action: Action) -> None:
    assert decide(POLICY, subject, None, names, peek=True).action is action
    without = Action.ALLOW if action is Action.PEEK else action
    assert decide(POLICY, subject, None, names).action is without


SHARED = ("site.example", "api.example", "web.example", "plain.example", "other.example")


@pytest.mark.parametrize(
    ("name", "action", "reason"),
    [
        ("web.example", Action.INSPECT, Reason.ALLOW_RULE),
        ("plain.example", Action.INSPECT, Reason.ALLOW_RULE),
        ("site.example", Action.ALLOW, Reason.ALLOW_RULE),
        ("api.example", Action.ALLOW, Reason.ALLOW_RULE),
        ("other.example", Action.DENY, Reason.NO_RULE),
        ("elsewhere.example", Action.DENY, Reason.NO_RULE),
        ("time.example", Action.DENY, Reason.PORT),
        (None, Action.DENY, Reason.NO_NAME),
    ],
)
def test_what_the_proxy_looks_into_once_a_client_has_named_its_host(
    name: str | None, action: Action, reason: Reason
) -> None:
    decision = greeted(POLICY, flow(6, 443), None, SHARED, name)
    assert (decision.action, decision.reason) == (action, reason)


def test_a_host_that_was_not_resolved_to_the_address_is_not_the_proxy_s_to_find() -> None:
    assert greeted(POLICY, flow(6, 443), None, ("web.example",), "site.example").reason is Reason.NAME
    assert greeted(POLICY, flow(6, 443), None, ("site.example",), "web.example").reason is Reason.NAME


@pytest.mark.parametrize("name", ["elsewhere.example", None])
def test_an_address_rule_opens_its_address_whoever_is_asked_for_there(name: str | None) -> None:
    assert greeted(POLICY, flow(6, 443, "10.0.0.1"), None, ("web.example",), name).action is Action.ALLOW


SPOKEN = parse(
    """
    site.example:443|80|22|8443
    mine.example exe=/usr/bin/git
    lax.example no-sni
    https://web.example/*
    quic.example:443/udp
    !bad.example
    192.0.2.99
    """,
    "p",
)
TLS, HTTP, QUIC, OTHER = Spoken.TLS, Spoken.HTTP, Spoken.QUIC, Spoken.OTHER
SITE, LAX = ("site.example",), ("site.example", "lax.example")
BOTH, WEB = ("site.example", "mine.example"), ("quic.example", "web.example")

CASES = {
    "its own name": (flow(6, 443), SITE, Seen(TLS, "site.example"), Reason.ALLOW_RULE),
    "by Host": (flow(6, 80), SITE, Seen(HTTP, "site.example"), Reason.ALLOW_RULE),
    "one of several": (flow(6, 443), LAX, Seen(TLS, "lax.example"), Reason.ALLOW_RULE),
    "a name nobody allows": (flow(6, 443), SITE, Seen(TLS, "evil.example"), Reason.NO_RULE),
    "an allowed name of another address": (flow(6, 443), SITE, Seen(TLS, "lax.example"), Reason.NAME),
    "allowed on another port": (flow(6, 80), LAX, Seen(HTTP, "lax.example"), Reason.PORT),
    "allowed to another program": (flow(6, 443), BOTH, Seen(TLS, "mine.example"), Reason.OWNER),
    "denied by name": (flow(6, 443), ("site.example", "bad.example"), Seen(TLS, "bad.example"), Reason.DENY_RULE),
    "the proxy's to look into": (flow(6, 443), ("site.example", "web.example"), Seen(TLS, "web.example"), Reason.NAME),
    "no SNI": (flow(6, 443), SITE, Seen(TLS, None), Reason.NO_NAME),
    "no SNI elsewhere": (flow(6, 8443), SITE, Seen(TLS, None), Reason.NO_NAME),
    "no SNI, no-sni": (flow(6, 443), LAX, Seen(TLS, None), Reason.ALLOW_RULE),
    "no-sni is no leave for a wrong one": (flow(6, 443), LAX, Seen(TLS, "evil.example"), Reason.NO_RULE),
    "no-sni of another port": (flow(6, 80), LAX, Seen(HTTP, None), Reason.NO_NAME),
    "another protocol": (flow(6, 22), SITE, Seen(OTHER, None), Reason.ALLOW_RULE),
    "another protocol for TLS's port": (flow(6, 443), SITE, Seen(OTHER, None), Reason.NO_NAME),
    "another protocol for HTTP's port": (flow(6, 80), SITE, Seen(OTHER, None), Reason.NO_NAME),
    "another protocol, no-sni": (flow(6, 443), LAX, Seen(OTHER, None), Reason.ALLOW_RULE),
    "quic": (flow(17, 443), ("quic.example",), Seen(QUIC, "quic.example"), Reason.ALLOW_RULE),
    "quic to a URL rule's host": (flow(17, 443), WEB, Seen(QUIC, "web.example"), Reason.PORT),
    "not quic": (flow(17, 443), ("quic.example",), Seen(OTHER, None), Reason.NO_NAME),
    "names that ran out": (flow(6, 22), (), Seen(OTHER, None), Reason.NO_BINDING),
}  # fmt: skip


@pytest.mark.parametrize(("subject", "names", "seen", "reason"), CASES.values(), ids=CASES)
def test_what_the_client_says_decides(subject: Flow, names: tuple[str, ...], seen: Seen, reason: Reason) -> None:
    decision = identified(SPOKEN, subject, None, names, seen)
    assert decision.reason is reason
    assert decision.action is (Action.ALLOW if reason is Reason.ALLOW_RULE else Action.DENY)


def test_http_3_to_a_host_of_url_rules_is_refused_so_that_clients_fall_back() -> None:
    assert decide(SPOKEN, flow(17, 443), None, ["web.example"], peek=True).reason is Reason.PORT
