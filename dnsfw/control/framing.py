"""Messages as octets: a length of four octets in network order, then JSON.

Law: pure. A length is judged before anything is read or kept for it. What can't be read raises NotUnderstoodError,
whose text is fit to be shown.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dnsfw.control.messages import VERSION, Answer, Answered, Asked, Question

PREFIX: Final = 4
LARGEST_QUESTION: Final = 4 << 10
LARGEST_ANSWER: Final = 16 << 20

_asked = msgspec.json.Decoder(Asked)
_question: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question)
_answered = msgspec.json.Decoder(Answered)
_encoder = msgspec.json.Encoder()


class NotUnderstoodError(ValueError):
    """The other end's octets are not a message of this version."""


def length(prefix: bytes, largest: int) -> int:
    """How many octets follow. Raises NotUnderstoodError for none, and for more than `largest`."""
    announced = int.from_bytes(prefix)
    if not 0 < announced <= largest:
        raise NotUnderstoodError(f"a message of {announced} octets")
    return announced


def ask(question: Question, token: str = "") -> bytes:
    """A question, framed."""
    return _framed(_encoder.encode(Asked(VERSION, msgspec.Raw(_encoder.encode(question)), token)))


def answer(said: Answer) -> bytes:
    """An answer, framed."""
    return _framed(_encoder.encode(Answered(VERSION, said)))


def read_question(body: bytes) -> tuple[Question, str]:
    """The question and its token. Raises NotUnderstoodError."""
    try:
        asked = _asked.decode(body)
        if asked.v != VERSION:
            raise NotUnderstoodError(f"a question of version {asked.v}; this guard speaks {VERSION}")
        return _question.decode(asked.ask), asked.token
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NotUnderstoodError(str(error)) from None


def read_answer(body: bytes) -> Answer:
    """Raises NotUnderstoodError."""
    try:
        return _answered.decode(body).said
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NotUnderstoodError(str(error)) from None


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(PREFIX) + body
