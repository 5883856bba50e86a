"""The demo's report for people.

Law: rendering only, by rich, which is loaded for the demo alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dnsfw.playground.rounds import POLICY, Attempt
from dnsfw.playground.verdicts import Line, Report, Verdict

_SHOWN = {
    Verdict.CLOSED: Text("closed", "green"),
    Verdict.OPEN: Text("OPEN", "bold red"),
    Verdict.KNOWN_OPEN: Text("open (known)", "yellow"),
    Verdict.NO_WAY: Text("-", "dim"),
    Verdict.WORKS: Text("works", "green"),
    Verdict.BROKEN: Text("BROKEN", "bold red"),
}


def show(report: Report, console: Console) -> None:
    console.print(render(report))


def render(report: Report) -> RenderableType:
    """Policy, table, notes on what is open, and the verdict in a sentence."""
    rules = [line.split("#")[0].strip() for line in POLICY.read_text(encoding="utf-8").splitlines()]
    policy = Text(f"The policy: {', '.join(filter(None, rules))}\n")
    return Group(policy, _table(report), *_notes(report), _conclusion(report))


def _table(report: Report) -> Table:
    table = Table(expand=False, pad_edge=False)
    table.add_column("What is tried")
    table.add_column("Unguarded")
    table.add_column("Under dnsfw run")
    table.add_column("What the program saw, guarded")
    _add_group(table, "The honest build", report.build)
    for title, lines in report.groups.items():
        _add_group(table, title, lines)
    return table


def _add_group(table: Table, title: str, lines: Iterable[Line]) -> None:
    table.add_section()
    table.add_row(Text(title, "bold"))
    for line in lines:
        table.add_row(f"  {line.way.title}", _unguarded(line), _SHOWN[line.verdict], Text(_seen(line.guarded), "dim"))


def _unguarded(line: Line) -> Text:
    if line.verdict in {Verdict.WORKS, Verdict.BROKEN}:
        return Text("works" if line.unguarded.arrived else "BROKEN")
    return Text("gets through" if line.unguarded.arrived else "no way here", "" if line.unguarded.arrived else "dim")


def _seen(attempt: Attempt) -> str:
    said = attempt.ended.split(": ", 1)[-1] or "no error"
    return f"{said[:48]}, {_duration(attempt.seconds)}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.1f} s"


def _notes(report: Report) -> list[Text]:
    """One sentence for each reason that known ways are open, naming them."""
    reasons: dict[str, list[str]] = {}
    for line in report.ways:
        if line.verdict is Verdict.KNOWN_OPEN:
            reasons.setdefault(line.way.open_until, []).append(line.way.title)
    return [Text(f"open (known): {'; '.join(titles)}: {reason}.", "yellow") for reason, titles in reasons.items()]


def _conclusion(report: Report) -> Text:
    tried, through = len(report.ways), sum(bool(line.unguarded.arrived) for line in report.ways)
    counts = f"{tried} ways out: {through} get through unguarded; of those dnsfw closed {report.count(Verdict.CLOSED)}"
    known, surprises = report.count(Verdict.KNOWN_OPEN), report.count(Verdict.OPEN)
    build = (
        "The build works." if all(line.verdict is Verdict.WORKS for line in report.build) else "THE BUILD IS BROKEN."
    )
    open_ones = f", {known} are open and known to be" if known else ""
    return Text(
        f"\n{counts}{open_ones}, {surprises} got through unexpectedly. {build}", "bold" if report.good else "bold red"
    )
