"""Metrics: the text that Prometheus reads, the port it may be read from, and the dashboard that shows it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dnsfw.control import messages as m
from dnsfw.control import metrics
from dnsfw.control.scrape import Scrape
from dnsfw.errors import SetupError
from dnsfw.journal.writer import JournalState

REPORT = m.StatusReport(
    name="up-1",
    mode="enforce",
    guards="host",
    since="2030-01-01T00:00:00.000000Z",
    policy=m.PolicyState("/etc/dnsfw/dnsfw.policy", "ab", 7, 2, "2030-01-01T00:01:00.000000Z"),
    counts=m.Counts(5, 4, 1),
    decisions=(m.DecisionCount("flow", "deny", "no-rule", 4), m.DecisionCount("query", "allow", "allow-rule", 5)),
    denials=(m.DenialState(4, 'resolve "evil".test', "/bin/x", "no rule", "evil.test"),),
    resolver={"queries": 9, "cached": 3, "forwarded": 2, "denied": 4, "failed": 1, "filtered": 6},
    queue=m.QueueState(3, 11),
    owners=m.OwnersState("BPF", {"known": 8, "unknown": 1}, {"flows": 5}),
    bindings=m.BindingsState(12, 1),
    upstreams=(m.UpstreamState("192.0.2.1", "answers", 0.25), m.UpstreamState("192.0.2.2", "silent", None)),
    journal=JournalState("/j", 10, 20, 2, "full", failing=True),
    lockdown=(),
    lives=m.Lives(3, "2030-01-01T00:02:00.000000Z", "killed"),
    versions={"dnsfw": "1.2.3"},
    proxy=m.ProxyState(("a.test", "b.test", "c.test", "d.test"), serving=False, deaths=2, last="signal 9"),
)
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text)
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value for family in families for each in family.samples
    }


def test_the_text_says_what_the_report_says() -> None:
    said = samples(metrics.text(REPORT))
    expected = {
        ("dnsfw_info", (("guards", "host"), ("mode", "enforce"), ("version", "1.2.3"))): 1,
        ("dnsfw_decisions_total", (("decision", "deny"), ("reason", "no-rule"), ("subject", "flow"))): 4,
        ("dnsfw_decisions_total", (("decision", "allow"), ("reason", "allow-rule"), ("subject", "query"))): 5,
        ("dnsfw_dns_messages_total", (("outcome", "cached"),)): 3,
        ("dnsfw_dns_messages_total", (("outcome", "dropped"),)): 0,
        ("dnsfw_dns_failures_total", ()): 1,
        ("dnsfw_upstream_up", (("server", "192.0.2.1"),)): 1,
        ("dnsfw_upstream_up", (("server", "192.0.2.2"),)): 0,
        ("dnsfw_upstream_rtt_seconds", (("server", "192.0.2.1"),)): 0.25,
        ("dnsfw_queue_packets", ()): 3,
        ("dnsfw_queue_dropped_packets_total", ()): 11,
        ("dnsfw_owner_lookups_total", (("outcome", "known"),)): 8,
        ("dnsfw_owner_records_evicted_total", (("table", "flows"),)): 5,
        ("dnsfw_bound_addresses", ()): 12,
        ("dnsfw_journal_lost_decisions_total", ()): 2,
        ("dnsfw_journal_failing", ()): 1,
        ("dnsfw_engine_restarts_total", ()): 3,
        ("dnsfw_proxy_up", ()): 0,
        ("dnsfw_proxy_deaths_total", ()): 2,
        ("dnsfw_policy_generation", ()): 2,
        ("dnsfw_start_time_seconds", ()): 1893456000,
    }
    assert {key: said[key] for key in expected} == expected
    assert ("process_resident_memory_bytes", ()) in said


def test_names_follow_the_conventions_and_nothing_foreign_is_a_label() -> None:
    """Base units, counters end in _total, gauges don't (prometheus.io/docs/practices/naming)."""
    text = metrics.text(REPORT)
    types = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    for name, kind in types.items():
        assert name.endswith("_total") == (kind == "counter"), name
        assert re.fullmatch(r"(dnsfw|process)_[a-z_]+", name)
        assert not re.search(r"milli|micro|_ms\b|_kb\b", name)
    assert "evil" not in text
    assert "/bin/x" not in text


def fetch(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def test_the_port_is_answered_on_loopback_and_a_silent_client_delays_nobody_for_long() -> None:
    async def scenario() -> None:
        with Scrape(0, lambda: REPORT) as scrape:
            scrape.start(asyncio.get_running_loop())
            with socket.create_connection(("127.0.0.1", scrape.port)):
                said = await asyncio.wait_for(asyncio.to_thread(fetch, scrape.port), 5)
            assert ("dnsfw_queue_packets", ()) in samples(said)
            with pytest.raises(SetupError, match="Metrics can't be served"):
                Scrape(scrape.port, lambda: REPORT)

    asyncio.run(scenario())


def test_the_dashboard_loads_and_asks_for_metrics_that_there_are() -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert board["title"] == "dnsfw"
    assert board["schemaVersion"] >= 36
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(expressions) >= len(panels)
    asked = {name for expression in expressions for name in re.findall(r"\b(?:dnsfw|process)_\w+", expression)}
    known = {name for name, _ in samples(metrics.text(REPORT))}
    assert asked <= known
    own = {name for name in known if name.startswith("dnsfw_")}
    assert not own - asked  # nor is any forgotten
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
