"""What a flow's first look decides: PEEK for hosts, and which names the proxy leaves alone."""

from __future__ import annotations

import pytest

from policy import Action, Flow, address, decide, opaque
from policy.parse import parse

POLICY = parse(
    """
    site.example:443|80
    time.example:123/udp
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
        (flow(17, 123), ["time.example"], Action.ALLOW),
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


def test_opaque_names() -> None:
    names = ["site.example", "api.example", "web.example", "plain.example", "other.example"]
    assert opaque(POLICY, flow(6, 443), names) == ("site.example", "api.example", "other.example")
    assert opaque(POLICY, flow(6, 8443), ["plain.example", "web.example"]) == ("web.example",)
