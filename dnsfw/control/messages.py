"""What can be asked of a guard, and what it answers.

Law: types alone, no behaviour. Both ends may be of different versions: what changes a field's meaning changes VERSION.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from dnsfw.journal.writer import JournalState

VERSION: Final = 1


class Status(msgspec.Struct, frozen=True, tag="status"):
    """How is the guard?"""


class Health(msgspec.Struct, frozen=True, tag="health"):
    """Try it: one look-up and one connect that must work, one of each that must not."""


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """Read the policy again."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Take the guard down."""


class Flows(msgspec.Struct, frozen=True, tag="flows"):
    """Which flows were judged of late?"""


class Bindings(msgspec.Struct, frozen=True, tag="bindings"):
    """Which addresses are bound to which names?"""


class Metrics(msgspec.Struct, frozen=True, tag="metrics"):
    """Prometheus' text."""


class Report(msgspec.Struct, frozen=True, tag="report"):
    """What did the guard do so far? Signed."""


class Sudo(msgspec.Struct, frozen=True, tag="sudo"):
    """Give the user whom lockdown took sudo(8) from it back, or take it again."""

    on: bool


type Question = Status | Health | Reload | Stop | Flows | Bindings | Metrics | Report | Sudo


class Asked(msgspec.Struct, frozen=True):
    """A question on its way. `token` is "" where there is none, which proves nothing. `ask` is read once `v` is known
    to be ours."""

    v: int
    ask: msgspec.Raw
    token: str = ""


class PolicyState(msgspec.Struct, frozen=True):
    """The policy in force. `file` is "" for the empty policy; `sha256` is of all that was read, as
    `cat POLICY INCLUDED… | sha256sum` prints it."""

    file: str
    sha256: str
    rules: int
    generation: int
    loaded: str


class Counts(msgspec.Struct, frozen=True):
    """Decisions since the start."""

    allowed: int
    denied: int
    faults: int


class DecisionCount(msgspec.Struct, frozen=True):
    """How many of a kind: of "query", "flow", "request" or "unreadable", by action and reason (policy/values.py)."""

    subject: str
    decision: str
    reason: str
    count: int


class DenialState(msgspec.Struct, frozen=True):
    """One kind of denial in a person's words. `remedy` is the line that would allow it, "" where none would."""

    count: int
    what: str
    who: str
    because: str
    remedy: str


class QueueState(msgspec.Struct, frozen=True):
    """Packets that wait for a verdict, and those that were dropped for want of room."""

    waiting: int
    lost: int


class OwnersState(msgspec.Struct, frozen=True):
    """Where owners come from, how many look-ups ended how, and how many records each bounded table has lost."""

    source: str
    counts: dict[str, int]
    evicted: dict[str, int]


class BindingsState(msgspec.Struct, frozen=True):
    """Addresses that are bound, and bindings that were pushed out before their time."""

    addresses: int
    evicted: int


class UpstreamState(msgspec.Struct, frozen=True):
    """`rtt` is in seconds, null before the first answer."""

    server: str
    state: Literal["untried", "answers", "silent"]
    rtt: float | None


class ProxyState(msgspec.Struct, frozen=True):
    """`hosts` are those whose requests it looks at; `serving`: is one at work? `deaths`, and the last's reason."""

    hosts: tuple[str, ...]
    serving: bool
    deaths: int
    last: str


class Lives(msgspec.Struct, frozen=True):
    """Was the guard ever down? `restarts` of its engine, when the last was and why; "" where there was none."""

    restarts: int = 0
    last: str = ""
    reason: str = ""


class StatusReport(msgspec.Struct, frozen=True, tag="status-report"):
    """The guard at a glance. Times are RFC 3339 in UTC."""

    name: str
    mode: Literal["enforce", "audit"]
    guards: Literal["host", "command"]
    since: str
    policy: PolicyState
    counts: Counts
    decisions: tuple[DecisionCount, ...]
    denials: tuple[DenialState, ...]
    resolver: dict[str, int]
    queue: QueueState
    owners: OwnersState
    bindings: BindingsState
    upstreams: tuple[UpstreamState, ...]
    journal: JournalState
    lockdown: tuple[str, ...]
    lives: Lives
    versions: dict[str, str]
    proxy: ProxyState | None = None


class Check(msgspec.Struct, frozen=True):
    """One thing that was tried. `skipped` says why it could not be, "" if it was."""

    what: str
    passed: bool
    found: str
    skipped: str = ""


class HealthReport(msgspec.Struct, frozen=True, tag="health-report"):
    """All that was tried."""

    checks: tuple[Check, ...]


class ReloadReport(msgspec.Struct, frozen=True, tag="reload-report"):
    """The new policy is in force: what it has more and less than the old one, in canonical lines."""

    policy: PolicyState
    added: tuple[str, ...]
    removed: tuple[str, ...]


class FlowState(msgspec.Struct, frozen=True):
    """Flows of one process to one place, as decided last. `proto` is the IP protocol's number."""

    proto: int
    dst: str
    dport: int
    names: tuple[str, ...]
    exe: str
    pid: int | None
    decision: str
    rule: str
    count: int
    last: str


class FlowsReport(msgspec.Struct, frozen=True, tag="flows-report"):
    """The latest first; `more` are left out."""

    flows: tuple[FlowState, ...]
    more: int


class BindingState(msgspec.Struct, frozen=True):
    """`left` is in seconds."""

    address: str
    name: str
    left: float


class BindingsReport(msgspec.Struct, frozen=True, tag="bindings-report"):
    """Live bindings; `more` are left out."""

    bindings: tuple[BindingState, ...]
    more: int


class MetricsReport(msgspec.Struct, frozen=True, tag="metrics-report"):
    """Prometheus' text format."""

    text: str


class StatementReport(msgspec.Struct, frozen=True, tag="statement-report"):
    """`statement` is JSON: a report with the guard's signature (dnsfw/journal/signing.py)."""

    statement: str


class HeldReport(msgspec.Struct, frozen=True, tag="held-report"):
    """What lockdown has taken from users now, in words."""

    held: tuple[str, ...]


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """It will be done; the guard says no more of it here."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It will not be done: what is wrong, and what to do about it."""

    problem: str
    remedy: str = ""


type Answer = (
    StatusReport
    | HealthReport
    | ReloadReport
    | FlowsReport
    | BindingsReport
    | MetricsReport
    | StatementReport
    | HeldReport
    | Accepted
    | Refused
)


class Answered(msgspec.Struct, frozen=True):
    """An answer on its way."""

    v: int
    said: Answer
