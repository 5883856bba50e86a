"""What a client is told instead of an answer.

Law: pure: a refusal in, a status line's worth of HTTP out. For people as text, for programs that ask for it as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from proxy.messages import Refusal


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is HTTP's."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


def denied(refusal: Refusal, accept: str) -> Answer:
    """403, whatever the reason. `accept` is the request's field, "" for none."""
    return _answer(403, b"http_request_denied", refusal, accept)


def unreachable(refusal: Refusal, accept: str) -> Answer:
    """502: it would have been allowed, and can't be had."""
    return _answer(502, b"tls_certificate_error", refusal, accept)


def _answer(status: int, error: bytes, refusal: Refusal, accept: str) -> Answer:
    as_json = "json" in accept.lower()
    body = _json(refusal) if as_json else _text(refusal, "denied" if status == 403 else "failed")
    kind = b"application/json" if as_json else b"text/plain; charset=utf-8"
    fields = (
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"proxy-status", b"dnsfw; error=" + error),  # RFC 9209
    )
    return Answer(status, fields, body)


def _json(refusal: Refusal) -> bytes:
    return msgspec.json.encode({"denied_by": "dnsfw", **msgspec.structs.asdict(refusal)}) + b"\n"


def _text(refusal: Refusal, verdict: str) -> bytes:
    lines = [f"dnsfw: {verdict}: {refusal.what}", f"    {refusal.why}"]
    if refusal.line:
        lines.append(f"    to allow it: {refusal.line}")
    return "\n".join([*lines, ""]).encode(errors="backslashreplace")
