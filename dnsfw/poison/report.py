"""What a run came to, for people, for programs and for a CI system's test view.

Law: rendering only. rich is loaded for the table alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from xml.etree import ElementTree as ET

import msgspec
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from dnsfw.poison.scenario import Scenario
from dnsfw.poison.verdict import Outcome, Result

_STYLES = {
    Outcome.HOLDS: "green",
    Outcome.FAILS: "bold red",
    Outcome.LACKS: "yellow",
    Outcome.NOT_APPLICABLE: "dim",
    Outcome.BROKEN: "bold magenta",
}
_WIDTH = 200  # columns, where there is no terminal
_SHOWN = 3  # misses a scenario; --json has them all

type Runs = Mapping[str, Sequence[Result]]  # by target, each in the order of the scenarios


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for a row a line in a file."""
    usual = Console()
    return usual if usual.is_terminal else Console(width=_WIDTH)


def failed(results: Sequence[Result]) -> bool:
    return any(result.outcome in (Outcome.FAILS, Outcome.BROKEN) for result in results)


def table(scenarios: Sequence[Scenario], runs: Runs) -> Table:
    """A row a scenario, a column a target."""
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    drawn.add_column("#", justify="right")
    drawn.add_column("Scenario", no_wrap=True)
    drawn.add_column("What is done")
    for target in runs:
        drawn.add_column(target, no_wrap=True)
    for number, scenario in enumerate(scenarios):
        outcomes = [results[number].outcome for results in runs.values()]
        cells = [Text(outcome, _STYLES[outcome]) for outcome in outcomes]
        drawn.add_row(str(scenario.attack), scenario.id, Text(scenario.title, "dim"), *cells)
    return drawn


def show(scenarios: Sequence[Scenario], runs: Runs, out: Console) -> None:
    """The table, what went wrong, and the counts."""
    out.print(table(scenarios, runs))
    for target, results in runs.items():
        for result in results:
            for miss in (*result.misses, *result.lacks)[:_SHOWN]:
                head = (f"\n{target} ", "bold"), (f"{result.scenario}: ", _STYLES[result.outcome])
                out.print(Text.assemble(*head, miss), end="")
    out.print()
    for target, results in runs.items():
        out.print(Text.assemble((f"\n{target}: ", "bold"), counts(results)), end="")
    out.print()


def counts(results: Sequence[Result]) -> str:
    counted = Counter(result.outcome for result in results)
    return ", ".join(f"{counted[outcome]} {outcome}" for outcome in Outcome if counted[outcome])


def listing(scenarios: Sequence[Scenario]) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("#", "Scenario", "Level", "What is done", "Rule"):
        drawn.add_column(heading, no_wrap=heading == "Scenario")
    for each in scenarios:
        drawn.add_row(str(each.attack), each.id, each.level, each.title, each.rule)
    return drawn


def markdown(scenarios: Sequence[Scenario], runs: Runs) -> str:
    """The table as GitHub-flavoured Markdown: for a document, or a CI job's summary."""
    heads = ["#", "scenario", "what is done", *runs]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for number, scenario in enumerate(scenarios):
        outcomes = [str(results[number].outcome) for results in runs.values()]
        lines.append(_row([str(scenario.attack), f"`{scenario.id}`", scenario.title, *outcomes]))
    lines += ["", *(f"- {target}: {counts(results)}" for target, results in runs.items())]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_json(scenarios: Sequence[Scenario], runs: Runs) -> str:
    """One object: `targets` by name, each a list of results with the scenario's title, attack and rule."""
    described = {each.id: {"title": each.title, "attack": each.attack, "rule": each.rule} for each in scenarios}
    targets = {
        target: [described[result.scenario] | msgspec.to_builtins(result) for result in results]
        for target, results in runs.items()
    }
    return msgspec.json.format(msgspec.json.encode({"targets": targets})).decode()


def write_junit(scenarios: Sequence[Scenario], runs: Runs, file: Path) -> None:
    """A test suite a target. What is lacking is no failure, but stands in the case's output. Raises OSError."""
    root = ET.Element("testsuites")
    for target, results in runs.items():
        suite = ET.SubElement(root, "testsuite", name=f"dnsfw poison {target}", tests=str(len(results)))
        for kind, outcome in (("failures", "FAILS"), ("errors", "broken"), ("skipped", "n/a")):
            suite.set(kind, str(sum(result.outcome == outcome for result in results)))
        for scenario, result in zip(scenarios, results, strict=True):
            _case(suite, scenario, result)
    ET.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def _case(suite: ET.Element, scenario: Scenario, result: Result) -> None:
    name = f"attack-{scenario.attack:02}"
    case = ET.SubElement(suite, "testcase", classname=name, name=scenario.id, time=f"{result.seconds:.3f}")
    tags = {Outcome.FAILS: "failure", Outcome.BROKEN: "error", Outcome.NOT_APPLICABLE: "skipped"}
    if tag := tags.get(result.outcome):
        ET.SubElement(case, tag, message="; ".join(result.misses)).text = f"{scenario.title}\n{scenario.rule}"
    if result.lacks:
        ET.SubElement(case, "system-out").text = "\n".join(result.lacks)


class Shown:
    """A progress bar on standard error, where that is a terminal. Told of results from any thread."""

    def __init__(self, total: int) -> None:
        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("poison", total=total)

    def __enter__(self) -> Self:
        if self._progress.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def told(self, result: Result) -> None:
        self._progress.update(self._task, advance=1, description=f"{result.scenario:30}")
