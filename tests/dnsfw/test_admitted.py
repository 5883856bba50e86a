"""What live flows were let through as, and how a later policy judges them by it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from dnsfw.engine.admitted import SILENCE, Admission, Admitted
from dnsfw.engine.gate import Gate
from dnsfw.journal.records import Entry
from policy import Action, Bindings, Flow, Owner, Proto, Seen, Spoken, address
from policy.parse import parse

HERE, THERE = address("198.18.0.2"), address("198.51.100.80")
GIT = Owner(pid=7, start_time=70, uid=1000, exe="/usr/bin/git", argv=("git", "push"), cgroup="/job")
TCP = Flow(Proto.TCP, HERE, 40000, THERE, 443)
UDP = Flow(Proto.UDP, HERE, 40000, THERE, 443)


def numbered(number: int) -> Flow:
    return TCP.but(sport=number)


def test_the_oldest_go_first_and_a_newer_flow_takes_an_older_one_s_place() -> None:
    admitted = Admitted(capacity=3)
    for number in (1, 2, 3, 1, 4):
        admitted.note(numbered(number), Admission(None, (f"n{number}",), 0.0))
    assert len(admitted) == 3
    assert [number for number in range(1, 5) if admitted.of(numbered(number))] == [1, 3, 4]


@pytest.mark.parametrize(
    "other",
    [
        TCP.but(proto=Proto.UDP),
        TCP.but(sport=1),
        TCP.but(dport=1),
        TCP.but(src=THERE, dst=HERE),
        TCP.but(src=address("2001:db8::1"), dst=address("2001:db8::2")),
    ],
    ids=["proto", "sport", "dport", "ends", "version"],
)
def test_a_flow_is_told_by_all_of_it(other: Flow) -> None:
    admitted = Admitted()
    admitted.note(TCP, Admission(GIT, ("a.example",), 0.0))
    assert admitted.of(other) is None
    assert admitted.of(TCP.but()) is not None


@dataclass
class World:
    """A gate whose clock and processes a test moves."""

    now: float = 1000.0
    owner: Owner | None = GIT
    entries: list[Entry] = field(default_factory=list)

    def gate(self, policy: str) -> Gate:
        return Gate(parse(policy, "p"), Bindings(), lambda _: self.owner, self.entries.append, lambda: self.now)


def begun(gate: Gate, flow: Flow) -> Action:
    """A flow whose client asks for a.example, where it is asked."""
    action, connection = gate.open(flow)
    return gate.named(connection, Seen(Spoken.TLS, "a.example")) if action is Action.PEEK else action


BOTH_NAMES = "a.example\nb.example\na.example:443/udp\n"


@pytest.mark.parametrize(
    ("policy", "action"),
    [
        pytest.param(BOTH_NAMES, Action.ALLOW, id="unchanged"),
        pytest.param("a.example", Action.ALLOW, id="its-name-stays"),
        pytest.param("b.example", Action.DENY, id="another-name-stays"),
        pytest.param("a.example:80", Action.DENY, id="another-port"),
        pytest.param("a.example exe=/usr/bin/git", Action.ALLOW, id="its-program"),
        pytest.param("a.example exe=/usr/bin/curl", Action.DENY, id="another-program"),
        pytest.param(f"a.example\n!{THERE}", Action.DENY, id="denied-address"),
        pytest.param("", Action.DENY, id="empty"),
    ],
)
def test_a_live_flow_is_judged_by_what_it_was_when_it_began(policy: str, action: Action) -> None:
    world = World()
    gate = world.gate(BOTH_NAMES)
    gate.bindings.bind("a.example", [(THERE, 60.0)], world.now)
    assert begun(gate, TCP) is Action.ALLOW
    world.now += 3600  # the binding is gone, and so is the process
    world.owner = None
    gate.bindings.bind("b.example", [(THERE, 60.0)], world.now)
    gate.adopt(parse(policy, "p"))
    world.entries.clear()
    assert gate.again(TCP) is action
    assert [entry.decision.action for entry in world.entries] == ([action] if action is Action.DENY else [])


def test_many_flows_alike_are_judged_once_and_all_counted() -> None:
    world = World()
    gate = world.gate(BOTH_NAMES)
    gate.bindings.bind("a.example", [(THERE, 60.0)], world.now)
    flows = [numbered(number) for number in (1, 2, 3)]
    assert [begun(gate, flow) for flow in flows] == [Action.ALLOW] * 3
    past = {gate.past(flow.packed) for flow in flows}
    assert len(past) == 1
    gate.adopt(parse("", "p"))
    world.entries.clear()
    assert gate.all_again(flows[0], past.pop(), spoken=True, times=3) is Action.DENY
    assert [(entry.subject, entry.times) for entry in world.entries] == [(flows[0], 3)]


def test_a_connection_inherits_nothing_from_an_earlier_one_with_the_same_ends() -> None:
    """Its client may have been silent for so long that the queue's table has forgotten it."""
    world = World()
    gate = world.gate(BOTH_NAMES)
    gate.bindings.bind("a.example", [(THERE, 60.0)], world.now)
    assert begun(gate, TCP) is Action.ALLOW
    assert gate.open(TCP)[0] is Action.PEEK
    assert gate.again(TCP) is Action.DENY


def test_an_expired_binding_stops_new_flows_only() -> None:
    """Of a UDP flow, a lease's end isn't the flow's; its silence is, and so is another process in its place."""
    world = World()
    gate = world.gate(BOTH_NAMES)
    gate.bindings.bind("a.example", [(THERE, 60.0)], world.now)
    assert begun(gate, UDP) is Action.ALLOW
    for _ in range(10):
        world.now += SILENCE / 2
        assert begun(gate, UDP) is Action.ALLOW
    assert begun(gate, UDP.but(sport=1)) is Action.DENY
    assert begun(gate, TCP.but(sport=1)) is Action.DENY
    world.owner = replace(GIT, pid=8)
    assert begun(gate, UDP) is Action.DENY
    world.owner = GIT
    world.now += SILENCE + 1
    assert begun(gate, UDP) is Action.DENY


@pytest.mark.parametrize(
    ("policy", "action"),
    [
        pytest.param(f"{THERE}:443/udp", Action.ALLOW, id="anybody"),
        pytest.param(f"{THERE}:443/udp exe=/usr/bin/git", Action.ONCE, id="one-program"),
        pytest.param(f"{THERE}:443/udp\n!192.0.2.0/24 user=0", Action.ONCE, id="all-but-one"),
        pytest.param("", Action.DENY, id="nobody"),
    ],
)
def test_no_lease_is_given_where_the_process_has_a_say(policy: str, action: Action) -> None:
    """Another one may send from the same port next."""
    gate = World().gate(policy)
    assert begun(gate, UDP) is action
    assert begun(gate, UDP.but(proto=Proto.TCP)) is Action.DENY
