"""DNS cookies, the client's side: by what we and each upstream know each other.

Law: pure; time and randomness come from the caller. One entry an upstream. A cookie tells a true answer from a guessed
one by 64 bits more; it never makes an answer true. Source: RFC 7873 5, RFC 9018 3.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from policy.value import Value
from resolver.upstreams import Upstream

OPTION: Final = 10  # RFC 7873 4
_CLIENT_SIZE: Final = 8
_SERVER_SIZES: Final = range(8, 33)  # RFC 7873 4
_LIFETIME: Final = 3600.0  # seconds: one that went with us to another network must not tell who we are for ever
_HEAD: Final = struct.Struct("!HH")

type Bits = Callable[[int], int]


class Cookie(Value, frozen=True):
    """`client` is ours, `server` what the upstream gave us for it, b"" before it did."""

    client: bytes
    server: bytes = b""

    @property
    def option(self) -> bytes:
        """As an EDNS option."""
        return _HEAD.pack(OPTION, len(self.client) + len(self.server)) + self.client + self.server

    def came_back_in(self, data: bytes) -> bool:
        """Whether an answer's cookie is one for ours. Ours alone is what some servers, that know of none, echo."""
        rest = len(data) - _CLIENT_SIZE
        return data[:_CLIENT_SIZE] == self.client and (rest == 0 or rest in _SERVER_SIZES)


class _Kept(Value, frozen=True):
    """`steady` is False for an upstream that gave us one and then answered without."""

    cookie: Cookie
    since: float
    steady: bool = True


@dataclass(slots=True)
class Cookies:
    """The cookies in use."""

    randbits: Bits = secrets.randbits
    _kept: dict[Upstream, _Kept] = field(default_factory=dict)

    def of(self, upstream: Upstream, now: float) -> Cookie:
        kept = self._kept.get(upstream)
        if kept is None or now - kept.since >= _LIFETIME:
            kept = self._kept[upstream] = _Kept(self._new(), now)
        return kept.cookie

    def learn(self, upstream: Upstream, sent: Cookie, data: bytes) -> None:
        """Remember what came back for `sent`, unless that is in use no longer."""
        kept = self._kept.get(upstream)
        if kept is not None and kept.steady and kept.cookie.client == sent.client:
            self._kept[upstream] = kept.but(cookie=sent.but(server=data[_CLIENT_SIZE:]))

    def give_up(self, upstream: Upstream, now: float) -> None:
        """It speaks of cookies at times only, as a cache before the server does: expect none for a while."""
        self._kept[upstream] = _Kept(self._new(), now, steady=False)

    def _new(self) -> Cookie:
        return Cookie(self.randbits(8 * _CLIENT_SIZE).to_bytes(_CLIENT_SIZE))
