"""The table's life: atomic, ours alone, removed twice without harm. And libnftables beneath it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from firewall import table
from firewall.nft import Nft, NftError
from firewall.table import Table, has_queue
from policy.values import Flow, Proto
from tests.firewall.street import (
    ALLOWED,
    DENIED,
    KERNEL,
    PLAN,
    REFUSALS,
    STRANGER,
    End,
    Listener,
    Street,
    in_force,
    only_the_allowed_port,
    refusal,
)

pytestmark = KERNEL

# Two addresses of different families: nft refuses the text as a whole.
IMPOSSIBLE = replace(PLAN, standing=(Flow(Proto.TCP, IPv4Address("192.0.2.1"), 1, IPv6Address("2001:db8::1"), 2),))

OTHERS = """
table inet filter {
  chain output {
    type filter hook output priority 0; policy accept;
    tcp dport 25 counter drop
  }
}
table ip dnsfw {
  chain somebody { }
}
table inet dnsfw2 {
  set names {
    type ipv4_addr
    elements = { 192.0.2.1 }
  }
}
"""


def state(end: End) -> list[str]:
    """All of nft and iptables, without what changes by itself."""
    listed = [end.run("nft", "-s", "list", "ruleset")]
    listed += [end.run(f"{program}-save") for program in ("iptables-nft", "ip6tables-nft")]
    return [line for text in listed for line in text.splitlines() if not line.startswith("#")]


@pytest.fixture
def others(street: Street) -> list[str]:
    """What others have in the namespace."""
    street.inside.run("nft", "-f", "-", stdin=OTHERS)
    for program in ("iptables-nft", "ip6tables-nft"):
        street.inside.run(
            program, "-t", "mangle", "-A", "OUTPUT", "-p", "tcp", "--dport", "80", "-j", "MARK", "--or-mark", "4"
        )
        street.inside.run(program, "-t", "mangle", "-A", "PREROUTING", "-j", "ACCEPT")
    return state(street.inside)


def test_what_belongs_to_others_is_as_it_was(street: Street, others: list[str]) -> None:
    with in_force(street.inside, PLAN):
        during = state(street.inside)
        assert set(others) < set(during)
        assert "table inet dnsfw {" in during
    assert state(street.inside) == others


def test_rules_that_others_made_meanwhile_stay(street: Street) -> None:
    with in_force(street.inside, PLAN):
        street.inside.run("iptables-nft", "-t", "mangle", "-A", "OUTPUT", "-j", "ACCEPT")
        street.inside.run("nft", "add table inet mine")
    assert {"-A OUTPUT -j ACCEPT", "table inet mine {"} <= set(state(street.inside))
    assert not [line for line in state(street.inside) if "dnsfw" in line or "NFQUEUE" in line]


def test_an_empty_namespace_is_empty_again(street: Street) -> None:
    before = street.inside.run("nft", "list", "ruleset")
    with in_force(street.inside, PLAN):
        pass
    assert street.inside.run("nft", "list", "ruleset") == before == ""


def test_leaving_twice_is_harmless(street: Street, others: list[str]) -> None:
    with street.inside.namespace.entered():
        held = Table(PLAN).__enter__()
        held.__exit__(None, None, None)
        held.__exit__(None, None, None)
        table.remove(PLAN.queue)
        table.remove(PLAN.queue)
    assert state(street.inside) == others


def test_what_somebody_removed_before_us_is_no_harm(street: Street) -> None:
    with in_force(street.inside, PLAN):
        street.inside.run("nft", "flush", "ruleset")
    assert street.inside.run("nft", "list", "ruleset") == ""


def test_a_plan_that_nft_refuses_leaves_nothing(street: Street, others: list[str]) -> None:
    with street.inside.namespace.entered(), pytest.raises(NftError, match="Error: "):
        Table(IMPOSSIBLE).__enter__()
    assert state(street.inside) == others


def test_a_killed_holder_s_remains_are_replaced_and_removed(street: Street, others: list[str]) -> None:
    """What SIGKILL leaves is what was there: nobody has left the table."""
    with street.inside.namespace.entered():
        Table(replace(PLAN, audit=True)).__enter__()
        second = Table(PLAN).__enter__()
    lines = state(street.inside)
    assert len([line for line in lines if "--comment dnsfw" in line]) in {0, 2}  # none where nft queues by itself
    assert not [line for line in lines if "bypass" in line]
    with street.inside.namespace.entered():
        table.remove(PLAN.queue)
    assert state(street.inside) == others
    with street.inside.namespace.entered():
        second.__exit__(None, None, None)
    assert state(street.inside) == others


def test_what_a_killed_holder_left_in_an_empty_namespace_is_gone(street: Street) -> None:
    with street.inside.namespace.entered():
        Table(PLAN).__enter__()
        table.remove(PLAN.queue)
    assert street.inside.run("nft", "list", "ruleset") == ""


def test_a_killed_holder_s_table_stays_closed(street: Street) -> None:
    """Of whom nobody is left: no listener, and a table that nobody holds."""
    with street.inside.namespace.entered():
        Table(PLAN).__enter__()
    with street.outside.listen(4, STRANGER[4], ALLOWED), street.inside.tcp(4) as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect((STRANGER[4], ALLOWED))


@pytest.mark.parametrize("in_nft", [True, False], ids=["nft", "iptables"])
@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
def test_either_hand_over_judges(street: Street, version: int, in_nft: bool) -> None:
    with street.inside.namespace.entered(), Nft() as nft:
        if in_nft and not has_queue(nft):
            pytest.xfail("this kernel's nft has no queue statement (CONFIG_NFT_QUEUE)")
    with (
        street.outside.listen(version, STRANGER[version], ALLOWED),
        Listener(street.inside, only_the_allowed_port) as listener,
        in_force(street.inside, PLAN, queue_in_nft=in_nft),
        street.inside.tcp(version) as allowed,
        street.inside.tcp(version) as denied,
    ):
        allowed.connect((STRANGER[version], ALLOWED))
        assert refusal(denied, (STRANGER[version], DENIED)) in REFUSALS
        assert len(listener.flows) == 2


def test_the_probe_for_nft_s_queue_leaves_nothing(street: Street, others: list[str]) -> None:
    with street.inside.namespace.entered(), Nft() as nft:
        has_queue(nft)
    assert state(street.inside) == others


def test_a_table_that_is_not_in_force_has_no_counters(street: Street) -> None:
    with pytest.raises(NftError, match="not in force"):
        Table(PLAN).counters()


# libnftables


def test_nft_acts_where_it_was_made(street: Street) -> None:
    with street.inside.namespace.entered():
        nft = Nft()
    with nft:
        nft.run("add table inet here")
        assert nft.run("list tables") == "table inet here\n"
    assert street.inside.run("nft", "list", "tables") == "table inet here\n"
    assert street.outside.run("nft", "list", "tables") == ""


def test_nft_does_all_or_nothing(street: Street) -> None:
    with street.inside.namespace.entered(), Nft() as nft:
        with pytest.raises(NftError, match="No such file or directory"):
            nft.run("add table inet here\nadd rule inet here nowhere accept\n")
        assert nft.run("list tables") == ""


def test_nft_says_what_it_thinks_of_the_text(street: Street) -> None:
    with street.inside.namespace.entered(), Nft() as nft:
        with pytest.raises(NftError, match="syntax error"):
            nft.run("frobnicate")
        nft.run("list tables")  # and takes the next


def test_what_nft_can_is_tried_and_thrown_away(street: Street) -> None:
    with street.inside.namespace.entered(), Nft() as nft:
        assert nft.can("add table inet here")
        assert not nft.can("add rule inet here nowhere accept")
        assert nft.run("list tables") == ""


def test_a_closed_connection_says_so(street: Street) -> None:
    with street.inside.namespace.entered():
        nft = Nft()
    nft.close()
    nft.close()
    with pytest.raises(NftError, match="closed"):
        nft.run("list tables")


def test_a_missing_library_names_the_remedy() -> None:
    with pytest.raises(NftError, match="install the package nftables"):
        Nft(library="libnftables.so.999")
