"""What a TCP client's first octets say of the host it wants.

Law: pure. Any octets give Words or a WordsError; a name once said is never another later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from firewall.clienthello import ClientHelloError, name_so_far, read_client_hello
from firewall.requesthead import Likeness, RequestError, likeness, read_request
from policy import NAMING_PORTS
from policy.values import Seen, Spoken

_HANDSHAKE = 22  # TLS (RFC 8446 section 5.1); in no line of text
_STRAY = re.compile(rb"[\x14\x15\x17\x18]\x03?")  # TLS's other records, from their first octet on
# A ClientHello in the form of SSL 2, which has no place for a name and which OpenSSL still takes: length, type, version
# (RFC 5246 appendix E.2).
_SSL2 = re.compile(rb"[\x80-\xff](?:.(?:\x01\x03?)?)?", re.DOTALL)


class WordsError(Exception):
    """They can't be read without ambiguity. The message says why."""


@dataclass(frozen=True, slots=True)
class Words:
    """`seen` is what they say; while they aren't `whole` its name may still come. `held`: the rest is near, and until
    then nothing of them need go out."""

    seen: Seen
    whole: bool
    held: bool = False


def read_words(data: bytes, port: int) -> Words:
    """Of a connection to this port, from its first octet on. Raises WordsError."""
    try:
        return _tls(data) if data[:1] == bytes([_HANDSHAKE]) else _odd(data) or _text(data, port)
    except (ClientHelloError, RequestError) as error:
        raise WordsError(str(error)) from error


def _tls(data: bytes) -> Words:
    hello = read_client_hello(data)
    if hello is None:
        return Words(Seen(Spoken.TLS, name_so_far(data)), whole=False, held=True)
    return Words(Seen(Spoken.TLS, hello.name), whole=True)


def _odd(data: bytes) -> Words | None:
    """What is TLS and doesn't begin as it should, or may turn out so; None for all else. Raises WordsError."""
    if _STRAY.fullmatch(data[:2]):
        if len(data) > 1:  # some servers skip an alert before a ClientHello (Go's, BoringSSL's)
            raise WordsError("a TLS record where a ClientHello should be")
        return Words(Seen(Spoken.OTHER, None), whole=False, held=True)
    if _SSL2.fullmatch(data[:4]):
        return Words(Seen(Spoken.TLS, None), whole=len(data) > 3, held=len(data) <= 3)
    return None


def _text(data: bytes, port: int) -> Words:
    like = likeness(data)
    if like is Likeness.REQUEST:
        head = read_request(data, port)
        return Words(Seen(Spoken.HTTP, head.host), head.whole, not head.whole)
    method = like is Likeness.METHOD
    unsure = like is Likeness.UNSURE and port not in NAMING_PORTS
    return Words(Seen(Spoken.OTHER, None), whole=not (method or unsure), held=method)
