"""The demo's report for people.

Law: rendering only, by rich, which is loaded for the demo alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dnsfw.playground.package.way import TIMED_OUT
from dnsfw.playground.rounds import POLICY, Attempt
from dnsfw.playground.verdicts import Line, Report, Verdict

_SUMMARY_LINES = 10
_SHOWN = {
    Verdict.CLOSED: ("closed", "green"),
    Verdict.OPEN: ("OPEN", "bold red"),
    Verdict.KNOWN_OPEN: ("open*", "yellow"),
    Verdict.NO_WAY: ("-", "dim"),
    Verdict.WORKS: ("works", "green"),
    Verdict.BROKEN: ("BROKEN", "bold red"),
}


def show(report: Report, console: Console) -> None:
    console.print(render(report))


def render(report: Report) -> RenderableType:
    """Policy, table, notes on what is open, and the verdict in a sentence."""
    rules = [line.split("#")[0].strip() for line in POLICY.read_text(encoding="utf-8").splitlines()]
    policy = Text(f"The policy: {', '.join(filter(None, rules))}\n")
    return Group(policy, _table(report), *_notes(report), *_said(report), _conclusion(report))


def _table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("Way")
    for heading in ("Unguarded", "dnsfw run", "Program told"):
        table.add_column(heading, no_wrap=True)
    _add_group(table, "The honest build", report.build)
    for title, lines in report.groups.items():
        _add_group(table, title, lines)
    return table


def _add_group(table: Table, title: str, lines: Iterable[Line]) -> None:
    table.add_row(Text(title, "bold"))
    for line in lines:
        table.add_row(
            f" {line.way.title}", _unguarded(line), Text(*_SHOWN[line.verdict]), Text(_seen(line.guarded), "dim")
        )


def _unguarded(line: Line) -> Text:
    if line.verdict in {Verdict.WORKS, Verdict.BROKEN}:
        return Text("works" if line.unguarded.arrived else "broken")
    return Text("through" if line.unguarded.arrived else "no way", "" if line.unguarded.arrived else "dim")


def _seen(attempt: Attempt) -> str:
    return attempt.ended or "no error"


def _notes(report: Report) -> list[Text]:
    """One sentence for each reason that known ways are open, naming them."""
    reasons: dict[str, list[str]] = {}
    for line in report.ways:
        if line.verdict is Verdict.KNOWN_OPEN:
            reasons.setdefault(line.way.open_because, []).append(line.way.title)
    return [Text(f"* {'; '.join(titles)}: {reason}.", "yellow") for reason, titles in reasons.items()]


def _said(report: Report) -> list[Text]:
    """The beginning of what `dnsfw run` printed when the package had ended."""
    lines = report.summary.splitlines()
    if not lines:
        return []
    more = ["  …"] if len(lines) > _SUMMARY_LINES else []
    text = "\n".join([*lines[:_SUMMARY_LINES], *more])
    return [Text("\nWhat dnsfw run said at its end:", "bold"), Text(text, "dim")]


def _conclusion(report: Report) -> Text:
    tried, through = len(report.ways), sum(bool(line.unguarded.arrived) for line in report.ways)
    known, surprises = report.count(Verdict.KNOWN_OPEN), report.count(Verdict.OPEN)
    works = all(line.verdict is Verdict.WORKS for line in report.build)
    sentences = (
        f"Of {tried} ways out {through} get through unguarded; dnsfw closed {report.count(Verdict.CLOSED)} of them.",
        f"{surprises} got through unexpectedly, {known} as known.",
        "The honest build works." if works else "THE HONEST BUILD IS BROKEN.",
        _promptness(report),
    )
    return Text("\n" + " ".join(filter(None, sentences)), "bold" if report.good else "bold red")


def _promptness(report: Report) -> str:
    """A program that is refused should fail at once, not hang."""
    told = [line.guarded.ended for line in report.ways if line.verdict is Verdict.CLOSED and line.guarded.ended]
    hung = told.count(TIMED_OUT)
    return f"{len(told) - hung} refused programs were told so at once, {hung} met with silence."
