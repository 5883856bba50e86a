"""A guard's state as Prometheus' metrics.

Law: pure, from the same report that `dnsfw status` shows, and imported where metrics are asked for: it loads
prometheus_client. Label values are of closed sets (modes, reasons, outcomes) or of the configuration (upstreams):
nothing that a guarded program chooses becomes a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dnsfw.control.messages import StatusReport

# Each message is one of these.
_MESSAGES = ("ignored", "rejected", "denied", "cached", "forwarded", "joined", "dropped")

type Read = Callable[[], StatusReport]


def text(report: StatusReport) -> str:
    """Prometheus' text format, with figures of the process that calls."""
    return generate_latest(registry(lambda: report)).decode()


def registry(read: Read) -> CollectorRegistry:
    """Reads anew for each collection."""
    made = CollectorRegistry(auto_describe=False)
    made.register(_Guard(read))
    ProcessCollector(registry=made)
    return made


class _Guard(Collector):
    def __init__(self, read: Read) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        report = self._read()
        yield from _guard(report)
        yield from _decisions(report)
        yield from _dns(report)
        yield from _tables(report)
        yield from _journal(report)
        yield from _proxy(report)


def _guard(report: StatusReport) -> Iterator[Metric]:
    labels = {"version": report.versions.get("dnsfw", ""), "mode": report.mode, "guards": report.guards}
    yield InfoMetricFamily("dnsfw", "The guard: its version, its mode, what it guards.", labels)
    yield _gauge("dnsfw_start_time_seconds", "When the guard began, since the epoch.", _seconds(report.since))
    yield _counter("dnsfw_engine_restarts", "Times that the engine died and came back.", report.lives.restarts)
    policy = report.policy
    yield _gauge("dnsfw_policy_rules", "Rules of the policy in force.", policy.rules)
    yield _gauge("dnsfw_policy_generation", "How often the policy was changed.", policy.generation)
    yield _gauge("dnsfw_policy_loaded_timestamp_seconds", "When the policy was read.", _seconds(policy.loaded))


def _decisions(report: StatusReport) -> Iterator[Metric]:
    decisions = CounterMetricFamily("dnsfw_decisions", "Decisions taken.", labels=("subject", "decision", "reason"))
    for made in report.decisions:
        decisions.add_metric((made.subject, made.decision, made.reason), made.count)
    yield decisions
    owners = CounterMetricFamily(
        "dnsfw_owner_lookups", "Questions for the process behind a socket.", labels=("outcome",)
    )
    for outcome, count in sorted(report.owners.counts.items()):
        owners.add_metric((outcome,), count)
    yield owners
    evicted = CounterMetricFamily("dnsfw_owner_records_evicted", "Records that a full table lost.", labels=("table",))
    for table, count in sorted(report.owners.evicted.items()):
        evicted.add_metric((table,), count)
    yield evicted


def _dns(report: StatusReport) -> Iterator[Metric]:
    counted = report.resolver
    messages = CounterMetricFamily("dnsfw_dns_messages", "What became of clients' messages.", labels=("outcome",))
    for outcome in _MESSAGES:
        messages.add_metric((outcome,), counted.get(outcome, 0))
    yield messages
    yield _counter("dnsfw_dns_failures", "Questions that no upstream answered.", counted.get("failed", 0))
    yield _counter("dnsfw_dns_faults", "Questions that an error of dnsfw's own denied.", counted.get("faults", 0))
    filtered = "Records removed from answers for the addresses in them."
    yield _counter("dnsfw_dns_filtered_records", filtered, counted.get("filtered", 0))
    up = GaugeMetricFamily("dnsfw_upstream_up", "0 for a DNS server that timed out of late.", labels=("server",))
    rtt = GaugeMetricFamily("dnsfw_upstream_rtt_seconds", "How quickly it answered of late.", labels=("server",))
    for upstream in report.upstreams:
        up.add_metric((upstream.server,), float(upstream.state != "silent"))
        if upstream.rtt is not None:
            rtt.add_metric((upstream.server,), upstream.rtt)
    yield from (up, rtt)


def _tables(report: StatusReport) -> Iterator[Metric]:
    yield _gauge("dnsfw_queue_packets", "Packets that wait for a verdict.", report.queue.waiting)
    yield _counter("dnsfw_queue_dropped_packets", "Packets dropped for want of room.", report.queue.lost)
    yield _gauge("dnsfw_bound_addresses", "Addresses open under a name.", report.bindings.addresses)
    yield _counter("dnsfw_bindings_evicted", "Bindings pushed out before their time.", report.bindings.evicted)


def _journal(report: StatusReport) -> Iterator[Metric]:
    journal = report.journal
    yield _counter("dnsfw_journal_records", "Records written.", journal.written)
    yield _counter("dnsfw_journal_folded_decisions", "Decisions that share another's record.", journal.folded)
    yield _counter("dnsfw_journal_lost_decisions", "Decisions that are in no file.", journal.lost)
    yield _gauge("dnsfw_journal_failing", "1 while the journal can't be written.", float(journal.failing))


def _proxy(report: StatusReport) -> Iterator[Metric]:
    if report.proxy is not None:
        yield _gauge("dnsfw_proxy_up", "0 while no proxy is at work: URL rules deny.", float(report.proxy.serving))
        yield _counter("dnsfw_proxy_deaths", "Proxies that died.", report.proxy.deaths)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(name, help_text, value)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value)


def _seconds(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339).timestamp()
