"""Answers of a guard as text for people.

Law: pure. What a process called itself, or a name, has been made harmless before (`dnsfw.journal.tally`);
JSON is as it comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from dnsfw.control import messages as m
from dnsfw.journal.tally import printable, several
from dnsfw.journal.writer import JournalState

_UNITS = ((172_800, 86_400, "d"), (7_200, 3_600, "h"), (120, 60, "min"), (0, 1, "s"))  # from when on, seconds, name
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}


def status(report: m.StatusReport, now: datetime) -> Iterator[str]:
    """The guard at a glance, the most telling first."""
    mode = "enforcing" if report.mode == "enforce" else "audit: nothing is denied"
    guarded = "this host" if report.guards == "host" else "one command"
    yield f"{report.name}: {mode}, guarding {guarded} since {_ago(report.since, now)}"
    yield from _policy(report.policy, now)
    counts = report.counts
    faults = f", {several(counts.faults, 'fault')} of our own" if counts.faults else ""
    yield f"  decisions   {counts.allowed} allowed, {counts.denied} denied{faults}"
    for denial in report.denials:
        yield f"    ✗ {denial.what}{f' ×{denial.count}' if denial.count > 1 else ''}  by {denial.who}"
        yield f"        {denial.because}"
    yield f"  queue       {report.queue.waiting} waiting, {report.queue.lost} dropped for want of room"
    for upstream in report.upstreams:
        rtt = "" if upstream.rtt is None else f" in {upstream.rtt * 1000:.0f} ms"
        yield f"  upstream    {upstream.server} {upstream.state}{rtt}"
    yield f"  bindings    {report.bindings.addresses} addresses, {report.bindings.evicted} pushed out early"
    owners = ", ".join(f"{count} {kind}" for kind, count in sorted(report.owners.counts.items())) or "none asked for"
    lost = ", ".join(f"{count} {table}" for table, count in report.owners.evicted.items() if count)
    yield f"  owners      {report.owners.source}: {owners}{f'; pushed out early: {lost}' if lost else ''}"
    yield from _proxy(report.proxy)
    yield from _journal(report.journal)
    yield f"  lockdown    {', '.join(report.lockdown) or 'none'}"
    yield f"  was down    {_lives(report.lives, now)}"
    yield f"  versions    {', '.join(f'{name} {version}' for name, version in report.versions.items())}"


def _policy(policy: m.PolicyState, now: datetime) -> Iterator[str]:
    if not policy.file:
        yield "  policy      none: nothing is allowed"
        return
    yield f"  policy      {printable(policy.file)}, {several(policy.rules, 'rule')}, generation {policy.generation}"
    yield f"              sha256 {policy.sha256}, read {_ago(policy.loaded, now)}"


def _journal(journal: JournalState) -> Iterator[str]:
    if not journal.file:
        yield "  journal     none"
        return
    lost = f", {journal.lost} lost" if journal.lost else ""
    yield f"  journal     {printable(journal.file)}: {several(journal.written, 'record')}{lost}"
    if journal.trouble:
        yield f"    ! {printable(journal.trouble)}"


def _proxy(proxy: m.ProxyState | None) -> Iterator[str]:
    if proxy is None:
        return
    first, more = ", ".join(proxy.hosts[:3]), len(proxy.hosts) - 3
    state = "at work" if proxy.serving else "not there: URL rules deny"
    died = f"; died {several(proxy.deaths, 'time')}, the last one of {printable(proxy.last)}" if proxy.deaths else ""
    yield f"  proxy       {state}, for {printable(first)}{f' and {more} more' if more > 0 else ''}{died}"


def _lives(lives: m.Lives, now: datetime) -> str:
    if not lives.restarts:
        return "never"
    return f"{several(lives.restarts, 'time')}, last {_ago(lives.last, now)}: {printable(lives.reason)}"


def flows(report: m.FlowsReport, now: datetime) -> Iterator[str]:
    """A line each, the latest first."""
    for flow in report.flows:
        host = f"[{flow.dst}]" if ":" in flow.dst else flow.dst
        proto = _PROTOCOLS.get(flow.proto, f"protocol {flow.proto}")
        names = f" ({printable(', '.join(flow.names[:3]))})" if flow.names else ""
        times = f" ×{flow.count}" if flow.count > 1 else ""
        by = f"{printable(flow.exe)} (pid {flow.pid})" if flow.pid is not None else "an unknown process"
        yield f"{flow.decision:7} {proto} {host}:{flow.dport}{names}{times}  by {by}, {_ago(flow.last, now)}"
    yield from _left_out(report.more)


def bindings(report: m.BindingsReport) -> Iterator[str]:
    """A line each, by name."""
    for binding in report.bindings:
        yield f"{printable(binding.name)}  {binding.address}  {binding.left:.0f} s"
    yield from _left_out(report.more)


def health(report: m.HealthReport) -> Iterator[str]:
    """A line for each thing that was tried."""
    for check in report.checks:
        sign = "-" if check.skipped else "✓" if check.passed else "✗"
        yield f"{sign} {check.what}: {printable(check.skipped or check.found)}"


def reload(report: m.ReloadReport) -> Iterator[str]:
    """What the policy gained and lost."""
    policy = report.policy
    yield f"{printable(policy.file)} is in force: {several(policy.rules, 'rule')}, generation {policy.generation}"
    yield from (f"  + {printable(line)}" for line in report.added)
    yield from (f"  - {printable(line)}" for line in report.removed)


def _left_out(more: int) -> Iterator[str]:
    if more:
        yield f"… and {more} more"


def _ago(text: str, now: datetime) -> str:
    """A moment and how long it is past."""
    when = datetime.fromisoformat(text)
    seconds = max(0, round((now - when).total_seconds()))
    size, unit = next((size, unit) for least, size, unit in _UNITS if seconds >= least)
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({seconds // size} {unit} ago)"
