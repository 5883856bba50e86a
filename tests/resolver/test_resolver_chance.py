"""Random bits by the block: as many as asked for, and none of them twice."""

from __future__ import annotations

import pytest

from resolver.chance import Chance


@pytest.mark.parametrize("bits", [1, 7, 8, 9, 16, 272, 2056, 8 * 5000], ids=str)
def test_it_is_as_many_bits_as_asked_for_and_all_of_them_vary(bits: int) -> None:
    chance = Chance()
    drawn = [chance(bits) for _ in range(64)]
    assert all(0 <= number < 1 << bits for number in drawn)
    ever, always = 0, (1 << bits) - 1
    for number in drawn:
        ever, always = ever | number, always & number
    assert (ever, always) == ((1 << bits) - 1, 0)  # by chance otherwise: 80,000 in 2 to the 64th


def test_no_octets_are_given_out_twice() -> None:
    chance = Chance()
    assert len({chance(128) for _ in range(2000)}) == 2000  # more than seven blocks


def test_two_have_nothing_in_common() -> None:
    one, other = Chance(), Chance()
    assert not {one(64) for _ in range(500)} & {other(64) for _ in range(500)}
