"""The host that a plain HTTP client asks for.

Law: pure. Any octets give the host of the request that they begin with, as far as it came, or a RequestError, and what
two servers could read differently is refused. Nothing behind the first request's head is looked at. Source: RFC 9112
sections 2.2, 3 and 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from policy.names import InvalidNameError, canonical
from policy.rules import METHODS

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
_LINE = re.compile(rb"(?P<method>" + _TOKEN + rb") (?P<target>[!-~\x80-\xff]+) HTTP/1\.[01]\r")
_FIELD = re.compile(rb"(?P<name>" + _TOKEN + rb"):[ \t]*(?P<value>[^\0-\x08\x0a-\x1f\x7f]*?)[ \t]*\r")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://(?P<authority>[^/?#]*)")
_HOST = re.compile(r"(?P<name>[^:\[\]@]*)(?::(?P<port>[0-9]{1,5})?)?")
_WORD = re.compile(rb"[A-Za-z]+[ \t]")
_HTTP_2 = b"PRI * HTTP/2.0\r"  # RFC 9113 section 3.4
_METHODS = tuple(method.encode() for method in METHODS)
_LONGEST = 8192  # octets of a line of text; a request's may have more (Go's servers take a million)
_BEGUN = re.compile(_TOKEN + rb" (?:/|[A-Za-z][A-Za-z0-9+.-]*://)[!-~\x80-\xff]*(?: [HTP/0-9.]*)?\r?")
_BINARY = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")


class RequestError(Exception):
    """A request's head that can't be read without ambiguity. The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """As much as has come: `host` is canonical, None where none was named. `whole`: the head is at its end."""

    host: str | None
    whole: bool


class Likeness(Enum):
    """What a first line that may not be whole could be."""

    REQUEST = auto()
    METHOD = auto()  # a request's method, or its beginning
    UNSURE = auto()  # a line of text, which may end as a request with a method of its own
    OTHER = auto()


def likeness(data: bytes) -> Likeness:
    """By the first line alone. Empty lines before it are skipped, as servers do."""
    line, end, _ = data.lstrip(b"\r\n").partition(b"\n")
    words = line.upper().split()
    if end:
        request = words and (words[-1].startswith(b"HTTP/") or (len(words) == 2 and words[0] == b"GET"))
        return Likeness.REQUEST if request else Likeness.OTHER
    method, space, _ = line.partition(b" ")
    if any(known == method or (not space and known.startswith(method)) for known in _METHODS):
        return Likeness.METHOD
    text = _WORD.match(line) or not _BINARY.search(line)
    unsure = text if len(line) < _LONGEST else _BEGUN.fullmatch(line)
    return Likeness.UNSURE if unsure else Likeness.OTHER


def read_request(data: bytes, port: int) -> RequestHead:
    """Of data that is like a REQUEST, sent to this port. Raises RequestError."""
    head, end, _ = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    first, *rest = (head + b"\r\n" if end else head).split(b"\n")
    line = _LINE.fullmatch(first)
    if first == _HTTP_2 or (first.upper().startswith(b"GET ") and b"HTTP/" not in first.upper()):
        return RequestHead(None, whole=True)  # its hosts are compressed; HTTP/0.9 has none
    if line is None:
        raise RequestError("not a request line of HTTP/1")
    if line["method"] == b"CONNECT":
        return RequestHead(None, whole=bool(end))  # what it names is not this server
    absolute = _ABSOLUTE.match(line["target"])
    hosts = [] if absolute is None else [absolute["authority"]]
    named = [value for name, value in map(_field, rest[:-1]) if name == b"host"]
    if len(named) > 1:
        raise RequestError("two Host fields")
    names = {_name(host, port) for host in hosts + named}
    if len(names) > 1:
        raise RequestError("two hosts in one request")
    return RequestHead(next(iter(names), None), whole=bool(end))


def _field(line: bytes) -> tuple[bytes, bytes]:
    field = _FIELD.fullmatch(line)
    if field is None:
        raise RequestError("not a header field")  # a folded line, a space before the colon, a bare line feed too
    return field["name"].lower(), field["value"]


def _name(value: bytes, port: int) -> str | None:
    """None for the empty field, which a request without a host has (RFC 9112 section 3.2)."""
    if not value:
        return None
    said = _HOST.fullmatch(value.decode("latin-1"))
    if said is None or (said["port"] and int(said["port"]) != port):
        raise RequestError("not a host of this connection's")
    try:
        return canonical(said["name"]) or None
    except InvalidNameError as error:
        raise RequestError(f"not a host: {error}") from error
