"""What it costs that a TLS client's first words are looked at before they go out.

Law: guarded and unguarded take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

from statistics import median

from bench.bed import Bed
from bench.figure import Figure, at_least, at_most

_ROUNDS = 3
_HTTPS = 443
_GREETINGS, _REQUESTS, _CONNECTIONS = 300, 2_000, 200


def measure(bed: Bed) -> list[Figure]:
    """Three figures: what a first octet takes longer, and the rate of requests that is left."""
    direct, peeked = _turns(bed, "greet", _GREETINGS, "p50")
    added = [guarded - plain for plain, guarded in zip(direct, peeked, strict=True)]
    against = f"direct {median(direct):,.0f} µs, guarded {median(peeked):,.0f} µs"
    return [
        Figure("peek: connect and first octet, added", median(added), "µs p50", at_most(400), against, tuple(added)),
        _rate(bed, "peek: HTTPS, one connection", "ask", _REQUESTS, 0.95),
        _rate(bed, "peek: HTTPS, a connection each", "ask-anew", _CONNECTIONS, 0.6),
    ]


def _rate(bed: Bed, name: str, work: str, amount: int, least: float) -> Figure:
    direct, guarded = _turns(bed, work, amount, "rate")
    ratios = tuple(one / other for other, one in zip(direct, guarded, strict=True))
    against = f"direct {median(direct):,.0f}/s, guarded {median(guarded):,.0f}/s"
    return Figure(name, median(ratios), "of direct", at_least(least), against, ratios)


def _turns(bed: Bed, work: str, amount: int, key: str) -> tuple[list[float], list[float]]:
    pairs = [
        (bed.client(work, _HTTPS, amount, guarded=False)[key], bed.client(work, _HTTPS, amount, guarded=True)[key])
        for _ in range(_ROUNDS)
    ]
    return [plain for plain, _ in pairs], [guarded for _, guarded in pairs]
