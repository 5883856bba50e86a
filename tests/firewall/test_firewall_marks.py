"""The mark's layout: states, generations, and the bits of others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.marks import (
    EXEMPT,
    GENERATIONS,
    HEARD,
    INBOUND,
    LISTENING,
    MASK,
    ONCE,
    OTHERS,
    TURNED,
    Mark,
    connection_mark,
)


def test_no_packet_mark_is_a_connection_mark() -> None:
    """So that a mark which somebody copies from a packet to its connection means nothing there."""
    connections = {connection_mark(mark, generation) for mark in Mark for generation in range(GENERATIONS)}
    assert len(connections) == len(Mark) * GENERATIONS
    assert not connections & set(Mark)
    assert not {ONCE, HEARD} & (connections | set(Mark))
    assert not {INBOUND, EXEMPT, TURNED} & {connection_mark(LISTENING, generation) for generation in range(GENERATIONS)}
    assert not {INBOUND, EXEMPT} & {connection_mark(Mark.ALLOW, generation) for generation in range(GENERATIONS)}


@given(st.sampled_from(Mark), st.integers(min_value=0))
def test_marks_stay_within_our_bits(mark: Mark, generation: int) -> None:
    assert connection_mark(mark, generation) & ~MASK == 0 == mark & ~MASK
    assert mark != 0


def test_the_bits_of_others_are_the_rest() -> None:
    assert MASK & OTHERS == 0
    assert MASK | OTHERS == 0xFFFF_FFFF


def test_a_generation_differs_from_those_near_it() -> None:
    seen = [connection_mark(Mark.ALLOW, generation) for generation in range(2 * GENERATIONS)]
    assert all(len(set(seen[start : start + GENERATIONS])) == GENERATIONS for start in range(GENERATIONS))


def test_there_is_no_generation_before_the_first() -> None:
    with pytest.raises(ValueError, match="not a generation"):
        connection_mark(Mark.ALLOW, -1)
