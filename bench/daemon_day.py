"""`python -m bench.daemon_day [DECISIONS]`: a day of steady load in a minute or two; does an engine's memory stay flat?

The engine's own parts, composed as it composes them, without sockets: gate, budgets, bindings and their snapshot,
tally, recent flows, journal. Names and addresses come and go, processes too. Prints resident megabytes as JSON:
at the start, and after each tenth of the day, whose first ones fill every table.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path

from dnsfw.control.recent import Recent
from dnsfw.engine.gate import Gate
from dnsfw.engine.snapshot import Known, Snapshot
from dnsfw.journal.records import Entry
from dnsfw.journal.shared import SharedLog
from dnsfw.journal.tally import Tally
from dnsfw.journal.writer import Journal
from dnsfw.machine.privilege import ROOT
from policy import Bindings, Budgets, Flow, Owner, Proto, Query
from policy.parse import parse

_DECISIONS = 2_000_000
_DAY = 86_400.0
_HOSTS = 60_000  # different names and addresses in a day
_LOG = 1 << 17  # bytes: small enough to be begun anew many times in the day
_A = 1


class Day:
    """An engine's parts, and a clock that makes a day of so many decisions."""

    def __init__(self, decisions: int) -> None:
        self._step = _DAY / decisions
        self._now = 0.0
        self._tally, self._recent = Tally(), Recent()
        self._journal = Journal(Path(os.devnull), "enforce", ROOT)
        self._journal.start()
        bindings, budgets = Bindings(), Budgets()
        policy = parse("allowed.example\n*.cdn.example\n10.0.0.0/9:443\n", "bench")
        self._snapshot = Snapshot(SharedLog(_LOG), Known(bindings, self._tally, budgets), policy, self._clock)
        self._gate = Gate(policy, bindings, self._owner_of, self._record, self._clock, budgets=budgets)

    def decide(self, number: int) -> None:
        """A question, or a flow to what a question was about."""
        self._now += self._step
        host = number * 7919 % _HOSTS
        far = IPv4Address(0x0A000000 + host * 251)
        client = Flow(Proto.UDP, IPv4Address("127.0.0.1"), 1024 + number % 60_000, far, 53)
        if number % 2:
            self._gate.open(Flow(Proto.TCP, client.src, client.sport, far, 443))
            return
        name = f"h{host}.{('cdn.example', 'evil.test')[number % 4 // 2]}"
        if self._gate.query(Query(name, _A, client)).action.value == "allow":
            self._snapshot.bind(name, [(far, 300.0)], self._now)

    def end(self) -> int:
        """Decisions that the journal lost."""
        self._journal.close()
        return self._journal.lost

    def _clock(self) -> float:
        return self._now

    def _owner_of(self, flow: Flow) -> Owner:
        pid = 1_000 + flow.sport % 5_000
        return Owner(pid, pid, 1000, f"/usr/bin/program-{pid % 50}", ("program", str(pid)), "/job")

    def _record(self, entry: Entry) -> None:
        self._tally.take(entry)
        self._snapshot.take(entry)
        self._recent.take(entry, self._now)
        self._journal.record(entry)


def resident() -> float:
    """Megabytes of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def main(decisions: int) -> None:
    day, sizes, began = Day(decisions), [resident()], time.monotonic()
    for number in range(decisions):
        day.decide(number)
        if (number + 1) % (decisions // 10) == 0:
            sizes.append(resident())
    print(json.dumps({"megabytes": sizes, "seconds": time.monotonic() - began, "lost": day.end()}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else _DECISIONS)
