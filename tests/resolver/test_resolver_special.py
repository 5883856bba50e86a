"""Special addresses: the quick look-up says what asking each network would."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.values import Network
from resolver.special import _SPECIAL, is_special


def slowly(packed: bytes) -> bool:
    address = ip_address(packed)
    return any(address in network for network in _SPECIAL if network.version == address.version)


@pytest.mark.parametrize("network", _SPECIAL, ids=str)
def test_a_network_s_borders(network: Network) -> None:
    size = network.max_prefixlen // 8
    first, last = int(network[0]), int(network[-1])
    for number in (first - 1, first, last, last + 1):
        if 0 <= number < 1 << 8 * size:
            packed = number.to_bytes(size)
            assert is_special(packed) is slowly(packed)
    assert is_special(network[0].packed)
    assert is_special(network[-1].packed)


@given(st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)))
def test_any_address(packed: bytes) -> None:
    assert is_special(packed) is slowly(packed)
