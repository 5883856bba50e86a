"""The head of a request: what is put to the gate, or why it can't be.

Law: pure. What two readers could read differently is refused here, before anybody is asked; what the path means is
policy's business. Framing (Content-Length against Transfer-Encoding) is mitmproxy's own check, which stays on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 section 5.6.2
_QUERY = re.compile(rb"[!-~\x80-\xff]*")  # no control, no space: HTTP/1 would end the target there
_AUTHORITY = re.compile(rb"[!-~]{1,300}")
# Some servers, and what they serve with, take the method or the path from these instead.
OVERRIDING = frozenset(
    {b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url"}
)
_UNSAFE = re.compile(rb"[\r\n\0]")  # RFC 9110 section 5.5; HTTP/2 can carry them, HTTP/1 would begin a new field


class UnreadableError(Exception):
    """A head that two readers could read differently. The message says where."""


@dataclass(frozen=True, slots=True)
class Head:
    """As received. `authority` is the target's (absolute form) or HTTP/2's, b"" where there is none; `target` the path
    with its query. A scheme said there is passed over: the connection has one, and that is what the server hears."""

    method: bytes
    authority: bytes
    target: bytes
    fields: Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Line:
    """What is judged: the host as the client wrote it, the path without its query."""

    host: str
    method: str
    path: str


def read_head(head: Head) -> Line:
    """Raises UnreadableError."""
    if not _TOKEN.fullmatch(head.method):
        raise UnreadableError(f"not a method: {_shown(head.method)}")
    for name, value in head.fields:
        if _UNSAFE.search(name) or _UNSAFE.search(value):
            raise UnreadableError(f"a line break or NUL in the field {_shown(name)}")
        if name.lower() in OVERRIDING:
            raise UnreadableError(f"another method or path in the field {_shown(name)}")
    path, _, query = head.target.partition(b"?")
    if not _QUERY.fullmatch(query):
        raise UnreadableError("a control character or a space in the query")
    return Line(_host(head), head.method.decode("ascii"), path.decode("latin-1"))


def _host(head: Head) -> str:
    """The one host that the target and the Host field name. Their letters' case aside they must be the same octets:
    which of two counts is told differently in RFC 9112 section 3.2.2 and RFC 9113 section 8.3.1."""
    hosts = [value for name, value in head.fields if name.lower() == b"host"]
    if len(hosts) > 1:
        raise UnreadableError(f"{len(hosts)} Host fields")
    named = {host.lower(): host for host in (head.authority, *hosts) if host or host in hosts}
    if not named:
        raise UnreadableError("no host")
    if len(named) > 1:
        raise UnreadableError(f"two hosts: {' and '.join(map(_shown, named.values()))}")
    (host,) = named.values()
    if not _AUTHORITY.fullmatch(host):
        raise UnreadableError(f"not a host: {_shown(host)}")
    return host.decode("ascii")


def _shown(raw: bytes) -> str:
    return ascii(raw[:80].decode("latin-1"))
