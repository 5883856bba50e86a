"""What a TCP client's first octets say of the host it wants.

Law: pure. Any octets give Words or a WordsError; a name once said is never another later.
"""

from __future__ import annotations

from dataclasses import dataclass

from firewall.clienthello import ClientHelloError, name_so_far, read_client_hello
from firewall.requesthead import Likeness, RequestError, likeness, read_request
from policy import NAMING_PORTS
from policy.values import Seen, Spoken

_HANDSHAKE = 22  # TLS (RFC 8446 section 5.1); in no line of text


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
        return _tls(data) if data[:1] == bytes([_HANDSHAKE]) else _text(data, port)
    except (ClientHelloError, RequestError) as error:
        raise WordsError(str(error)) from error


def _tls(data: bytes) -> Words:
    hello = read_client_hello(data)
    if hello is None:
        return Words(Seen(Spoken.TLS, name_so_far(data)), whole=False, held=True)
    return Words(Seen(Spoken.TLS, hello.name), whole=True)


def _text(data: bytes, port: int) -> Words:
    like = likeness(data)
    if like is Likeness.REQUEST:
        head = read_request(data, port)
        return Words(Seen(Spoken.HTTP, head.host), head.whole, not head.whole)
    method = like is Likeness.METHOD
    unsure = like is Likeness.UNSURE and port not in NAMING_PORTS
    return Words(Seen(Spoken.OTHER, None), whole=not (method or unsure), held=method)
