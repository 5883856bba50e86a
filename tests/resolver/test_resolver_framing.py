"""Messages in a TCP stream, cut wherever the network likes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.framing import Deframer, FrameError, frame


@settings(deadline=None)  # how long it takes on a busy machine proves nothing
@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 50))
def test_messages_survive_any_cutting(messages: list[bytes], size: int) -> None:
    stream = b"".join(map(frame, messages))
    deframer, seen = Deframer(40), list[bytes]()
    for at in range(0, len(stream), size):
        deframer.feed(stream[at : at + size])
        while (message := deframer.next()) is not None:
            seen.append(message)
    assert seen == messages


def test_a_message_longer_than_allowed_is_refused_before_it_has_arrived() -> None:
    deframer = Deframer(100)
    deframer.feed(b"\x00\x65")
    with pytest.raises(FrameError):
        deframer.next()
