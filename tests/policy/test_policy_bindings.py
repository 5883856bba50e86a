"""Bindings: bounded, timed, and never a name too many."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from policy import Bindings

A, B, C = (IPv4Address(f"192.0.2.{last}") for last in (1, 2, 3))


def test_a_binding_lives_exactly_as_long_as_it_may() -> None:
    bindings = Bindings()
    bindings.bind("a.example", [(A, 10.0)], now=100.0)
    assert bindings.names(A, 109.999) == ("a.example",)
    assert len(bindings) == 1
    assert bindings.names(A, 110.0) == ()
    assert len(bindings) == 0
    assert bindings.names(B, 100.0) == ()


def test_one_address_has_many_names_each_with_its_own_time() -> None:
    bindings = Bindings()
    bindings.bind("a.example", [(A, 10.0), (B, 10.0)], now=0.0)
    bindings.bind("b.example", [(A, 20.0)], now=5.0)
    assert bindings.names(A, 6.0) == ("a.example", "b.example")
    assert bindings.names(B, 6.0) == ("a.example",)
    assert bindings.names(A, 12.0) == ("b.example",)
    assert bindings.names(A, 25.0) == ()


def test_a_later_answer_extends_and_never_shortens() -> None:
    bindings = Bindings()
    bindings.bind("a.example", [(A, 100.0)], now=0.0)
    bindings.bind("a.example", [(A, 1.0)], now=10.0)
    assert bindings.names(A, 99.0) == ("a.example",)
    bindings.bind("a.example", [(A, 100.0)], now=50.0)
    assert bindings.names(A, 149.0) == ("a.example",)


def test_no_time_is_no_binding() -> None:
    bindings = Bindings()
    bindings.bind("a.example", [(A, 0.0), (B, -1.0)], now=0.0)
    assert (bindings.names(A, 0.0), bindings.names(B, 0.0), len(bindings)) == ((), (), 0)


def test_an_address_in_use_outlives_idle_ones() -> None:
    bindings = Bindings(capacity_addresses=2)
    bindings.bind("a.example", [(A, 60.0)], now=0.0)
    bindings.bind("b.example", [(B, 60.0)], now=1.0)
    assert bindings.names(A, 2.0)
    bindings.bind("c.example", [(C, 60.0)], now=3.0)
    assert [bindings.names(address, 4.0) for address in (A, B, C)] == [("a.example",), (), ("c.example",)]
    assert bindings.evicted == 1


def test_what_ran_out_makes_room_and_is_not_counted() -> None:
    bindings = Bindings(capacity_addresses=2)
    bindings.bind("a.example", [(A, 60.0)], now=0.0)
    bindings.bind("b.example", [(B, 1.0)], now=0.5)
    bindings.bind("c.example", [(C, 60.0)], now=10.0)
    assert [bindings.names(address, 11.0) for address in (A, B, C)] == [("a.example",), (), ("c.example",)]
    assert bindings.evicted == 0


def test_a_full_table_is_looked_through_once_a_second_and_what_ran_out_is_never_counted() -> None:
    bindings = Bindings(capacity_addresses=1)
    bindings.bind("a.example", [(A, 60.0)], now=0.0)
    bindings.bind("b.example", [(B, 0.3)], now=0.1)
    assert bindings.evicted == 1
    bindings.bind("c.example", [(C, 60.0)], now=0.5)
    assert (bindings.names(C, 0.5), bindings.evicted) == (("c.example",), 1)


def test_names_of_one_address_are_bounded_the_soonest_to_end_goes() -> None:
    bindings = Bindings(names_per_address=2)
    for name, ttl in (("a.example", 50.0), ("b.example", 10.0), ("c.example", 30.0)):
        bindings.bind(name, [(A, ttl)], now=0.0)
    assert bindings.names(A, 1.0) == ("a.example", "c.example")
    assert bindings.evicted == 1


def test_families_are_kept_apart() -> None:
    bindings = Bindings()
    bindings.bind("a.example", [(IPv4Address(1), 10.0)], now=0.0)
    assert bindings.names(IPv6Address(1), 1.0) == ()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.lists(st.tuples(st.integers(1, 6).map(IPv4Address), st.floats(-1, 20)), max_size=4),
        st.floats(0, 5),
    ),
    max_size=40,
)


@given(STEPS)
def test_within_its_bounds_it_is_a_plain_model(steps: list[tuple[str, list[tuple[IPv4Address, float]], float]]) -> None:
    """Against a dictionary that never forgets: the same names; smaller bounds only ever have fewer."""
    roomy, tight = Bindings(6, 3), Bindings(2, 2)
    model: dict[tuple[IPv4Address, str], float] = {}
    now = 0.0
    for name, answers, pause in steps:
        now += pause
        roomy.bind(name, answers, now)
        tight.bind(name, answers, now)
        for address, ttl in answers:
            model[address, name] = max(now + ttl, model.get((address, name), 0.0))
        for address in map(IPv4Address, range(1, 7)):
            live = {bound for (held, bound), until in model.items() if held == address and now < until}
            assert set(roomy.names(address, now)) == live
            assert set(tight.names(address, now)) <= live
        assert len(tight) <= 2
    assert roomy.evicted == 0


def test_a_look_at_all_that_is_live_is_no_use_of_any() -> None:
    """Else a report would decide what is evicted next."""
    bindings = Bindings(capacity_addresses=3)
    for name, where, ttl in (("a.example", A, 60.0), ("b.example", B, 90.0), ("c.example", C, 30.0)):
        bindings.bind(name, [(where, ttl)], 0.0)
    assert [binding.name for binding in bindings.live(0.0)] == ["c.example", "a.example", "b.example"]
    assert [binding.name for binding in bindings.live(0.0, most=1)] == ["b.example"]
    bindings.bind("d.example", [(IPv4Address("192.0.2.4"), 60.0)], 0.0)  # a.example's was used least recently
    assert {binding.name for binding in bindings.live(0.0)} == {"b.example", "c.example", "d.example"}
