"""One question put to the upstreams, from the first packet to the answer: sans-IO.

Law: no socket, no clock and no randomness of its own. Whoever drives an `Exchange` tells it what arrived and what
time it is, and carries out the step it gets back. One is driven like this::

    step = exchange.start(now)
    while isinstance(step, Attempt):
        # send step.payload on a fresh connected socket; until exchange.deadline feed receive(), network_error(),
        # closed() or, at the deadline, time_out(); each returns the next step, or None to go on waiting
        ...

What a forger would have to guess (RFC 5452): the id, the socket's port and the case of the name, all new for each
attempt, and a cookie where the upstream speaks of cookies (RFC 7873). What a forger sends is ignored; only the
deadline, or an answer that fits, ends a wait.
"""

from __future__ import annotations

import secrets
import string
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from policy.value import Value
from resolver import wire
from resolver.cookies import Bits, Cookie, Cookies
from resolver.message import Message, MessageError, read_response
from resolver.reply import Ede, Explanation
from resolver.upstreams import Transport, Upstream
from resolver.wire import HEADER, TYPE_CLASS

_ANSWERS: Final = (wire.NOERROR, wire.NXDOMAIN)
_PADDING: Final = 12  # an EDNS option (RFC 7830 3)
_BLOCK: Final = 128  # octets that an encrypted question's size is a multiple of (RFC 8467 4.1)
_OPTION: Final = struct.Struct("!HH")
_CASE_BIT: Final = 0x20
_CASE_MASK: Final = bytes(_CASE_BIT if chr(octet) in string.ascii_letters else 0 for octet in range(256))


class Asked(Value, frozen=True):
    """What makes two questions the same question upstream. `name` is flat, in lower case."""

    name: bytes
    qtype: int
    dnssec_ok: bool = False
    checking_disabled: bool = False


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds, and how much to bear."""

    udp: float = 1.0  # for an answer to one datagram
    stream: float = 2.0  # for a connection and its answer, over TCP or TLS
    total: float = 4.5  # for all attempts together: under the 5 s of most stub resolvers (resolv.conf(5))
    after_error: float = 0.1  # after an ICMP error, which anyone may forge: a true answer may be on its way
    rounds: int = 2  # times that each upstream is asked
    near_misses: int = 20  # wrong replies until UDP is given up for TCP, where they can't be forged (RFC 5452 9.3)


class Attempt(Value, frozen=True):
    """Send `payload` (one message, without TCP's length) to `upstream`; over UDP from a socket never used before.
    `cookie` is the one in it."""

    upstream: Upstream
    transport: Transport
    payload: bytes
    cookie: Cookie | None = None


class Answered(Value, frozen=True):
    message: Message
    upstream: Upstream
    rtt: float


class Failed(Value, frozen=True):
    """No upstream gave an answer; `explanation` is None where one answered, with an error."""

    explanation: Explanation | None


type Outcome = Answered | Failed
type Step = Attempt | Outcome


@dataclass(slots=True)
class Exchange:
    """The state of one question. `deadline` is when `time_out` is due; `ignored` counts what was thrown away."""

    asked: Asked
    upstreams: Sequence[Upstream]
    patience: Patience = field(default_factory=Patience)
    randbits: Bits = secrets.randbits
    cookies: Cookies = field(default_factory=Cookies)
    deadline: float = 0.0
    ignored: int = 0
    timed_out: tuple[Upstream, ...] = ()
    _ends: float = 0.0
    _sent: float = 0.0
    _attempt: Attempt | None = None
    _turns: int = 0
    _near_misses: int = 0
    _error: Explanation | None = None
    _refused: tuple[Upstream, ...] = ()
    _renewed: tuple[Upstream, ...] = ()  # those that gave us another cookie, which they do once

    def start(self, now: float) -> Step:
        self._ends = now + self.patience.total
        return self._next(now)

    def receive(self, data: bytes, now: float) -> Step | None:
        """One whole message from the attempt's socket; None if it is to be ignored."""
        attempt = self._current()
        message = self._matching(data, attempt)
        if message is None:
            return self._ignore(attempt, now)
        if message.truncated:
            if attempt.transport is not Transport.UDP:
                return self.closed(now)
            return self._try(attempt.upstream, Transport.TCP, now)  # RFC 7766 5
        if attempt.cookie is not None and (step := self._known_by(attempt, attempt.cookie, message, now)):
            return step
        if message.rcode in _ANSWERS:
            return Answered(message, attempt.upstream, now - self._sent)
        self._refused += (attempt.upstream,)
        return self._next(now)

    def _known_by(self, attempt: Attempt, sent: Cookie, message: Message, now: float) -> Step | None:
        """The next step if the answer's cookie asks for one: it may be the wrong one for the upstream, or missing."""
        upstream = attempt.upstream
        if message.cookie is not None:
            self.cookies.learn(upstream, sent, message.cookie)
        elif sent.server:  # it had one for us before: a good guess, or an upstream that has changed its mind
            self.cookies.give_up(upstream, now)
            return self._try(upstream, Transport.TCP, now)
        if message.rcode != wire.BADCOOKIE:
            return None
        again = upstream not in self._renewed
        self._renewed += (upstream,)
        return self._try(upstream, Transport.UDP if again else Transport.TCP, now)  # RFC 7873 5.3

    def network_error(self, now: float) -> Step | None:
        """The socket reported an error. Over UDP that may be a forged ICMP message, so it only shortens the wait."""
        if self._current().transport is not Transport.UDP:
            return self.closed(now)
        self._error = self._unreachable()
        self.deadline = min(self.deadline, now + self.patience.after_error)
        return None

    def closed(self, now: float) -> Step:
        """The attempt is over without an answer: it could not be sent, or the upstream hung up."""
        self._error = self._unreachable()
        return self._next(now)

    def time_out(self, now: float) -> Step:
        """The deadline has passed."""
        attempt = self._current()
        if self._error is None:
            self._error = _silence(attempt.upstream)
        self.timed_out += (attempt.upstream,)
        if self._near_misses and attempt.transport is Transport.UDP:
            return self._try(attempt.upstream, Transport.TCP, now)  # it may be one that does not keep our case
        return self._next(now)

    def _unreachable(self) -> Explanation:
        return Explanation(Ede.NETWORK_ERROR, f"dnsfw: {self._current().upstream} is not reachable")

    def _current(self) -> Attempt:
        if self._attempt is None:
            raise RuntimeError("an exchange is started before it is fed")
        return self._attempt

    def _matching(self, data: bytes, attempt: Attempt) -> Message | None:
        """The message, if it is the answer to this very attempt (RFC 5452 9.1)."""
        if data[:2] != attempt.payload[:2]:
            return None  # a wrong id: not worth reading
        try:
            message = read_response(data)
        except MessageError:
            return None
        sent = attempt.payload[wire.HEADER_SIZE : wire.HEADER_SIZE + len(self.asked.name)]
        if (
            attempt.cookie is not None
            and message.cookie is not None
            and not attempt.cookie.came_back_in(message.cookie)
        ):
            return None  # RFC 7873 5.3
        same = message.asked == sent if attempt.transport is Transport.UDP else message.asked.lower() == self.asked.name
        return message if same and message.qtype == self.asked.qtype else None

    def _ignore(self, attempt: Attempt, now: float) -> Step | None:
        self.ignored += 1
        if attempt.transport is not Transport.UDP:
            return self.closed(now)  # nobody else speaks on this connection: the upstream itself is wrong
        self._near_misses += 1
        if self._near_misses >= self.patience.near_misses:
            return self._try(attempt.upstream, Transport.TCP, now)
        return None

    def _next(self, now: float) -> Step:
        while self._turns < self.patience.rounds * len(self.upstreams) and now < self._ends:
            upstream = self.upstreams[self._turns % len(self.upstreams)]
            self._turns += 1
            if upstream not in self._refused:
                return self._try(upstream, upstream.transport, now)
        return Failed(None if self._refused else self._error)

    def _try(self, upstream: Upstream, transport: Transport, now: float) -> Step:
        if now >= self._ends:
            return Failed(self._error or _silence(upstream))
        wait = self.patience.udp if transport is Transport.UDP else self.patience.stream
        self.deadline = min(now + wait, self._ends)
        self._sent, self._near_misses = now, 0
        cookie = self.cookies.of(upstream, now) if transport is Transport.UDP else None
        options = b"" if cookie is None else cookie.option
        payload = question_bytes(self.asked, self.randbits, options, padded=transport is Transport.TLS)
        self._attempt = Attempt(upstream, transport, payload, cookie)
        return self._attempt


def _silence(upstream: Upstream) -> Explanation:
    return Explanation(Ede.NO_REACHABLE_AUTHORITY, f"dnsfw: {upstream} does not answer")


def question_bytes(asked: Asked, randbits: Bits, options: bytes = b"", *, padded: bool = False) -> bytes:
    """A question of our own for `asked`: random id and case, our EDNS with these options, nothing of the client's but
    what it asks; its size, if padded, says little of the name's."""
    size = len(asked.name)
    ident, letters = divmod(randbits(16 + 8 * size), 1 << 8 * size)  # one call: each is a system call
    case = int.from_bytes(asked.name.translate(_CASE_MASK)) & letters
    name = (int.from_bytes(asked.name) ^ case).to_bytes(size)
    flags = wire.RD | (wire.CD if asked.checking_disabled else 0)
    question = HEADER.pack(ident, flags, 1, 0, 0, 1) + name + TYPE_CLASS.pack(asked.qtype, wire.IN)
    if padded:
        size = len(question) + wire.OPT_FIXED.size + len(options) + _OPTION.size
        options += _OPTION.pack(_PADDING, -size % _BLOCK) + bytes(-size % _BLOCK)
    return question + wire.opt_record(flags=wire.DO if asked.dnssec_ok else 0, options=options)
