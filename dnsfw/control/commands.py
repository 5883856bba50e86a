"""The commands that ask a guard in force.

Law: options, help and exit statuses, as in `dnsfw.cli`; what is asked and shown stands in `client` and `report`, which
are imported when they are needed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnsfw.errors import DnsfwError, UsageError

if TYPE_CHECKING:
    from dnsfw.control.messages import Question

EXIT_NOT_GUARDED = 1
EXIT_AUDIT = 3
EXIT_SILENT = 4
_STOPPED_WITHIN = 15.0
_TOKEN_VARIABLE = "DNSFW_TOKEN"  # noqa: S105 - a variable's name

_GUARD = click.argument("guard", default="", metavar="[GUARD]")
_JSON = click.option("--json", "as_json", is_flag=True, help="For machines.")
_TOKEN = click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
                      help=f"Holds the token that the guard was started with; - is standard input. "
                      f"Default: ${_TOKEN_VARIABLE}.")  # fmt: skip


@click.command(short_help="Say how a guard is.")
@_GUARD
@_JSON
def status(guard: str, *, as_json: bool) -> None:
    """Say how the guards on this machine are, or the one that GUARD begins the name of (`up`, `dnsfw-1a2b3c`).

    \b
    Exit status: 0 if all of them enforce; 1 if none is in force; 3 if one only audits; 4 if one does not answer:
    then what it guards is closed. 2 for a mistake in the call, 125 if a guard is not yours to ask.
    """
    from dnsfw.control import report
    from dnsfw.control.client import SilentError, guards
    from dnsfw.control.messages import Status, StatusReport

    worst, said = 0, []
    for each in guards():
        if not each.name.startswith(guard):
            continue
        try:
            answer = _expect(StatusReport, each.ask(Status()))
        except DnsfwError as error:
            if isinstance(error, SilentError) and not each.directory.exists():
                continue  # it ended just now
            worst = max(worst, EXIT_SILENT if isinstance(error, SilentError) else error.exit_status)
            _tell([str(error)], error=True)
        else:
            worst = max(worst, EXIT_AUDIT if answer.mode == "audit" else 0)
            said.append(answer)
    if as_json:
        _dump(said)
    else:
        now = datetime.now(UTC)
        _tell(line for answer in said for line in report.status(answer, now))
    if not said and not worst:
        _tell(["No guard is in force."], error=True)
        worst = EXIT_NOT_GUARDED
    sys.exit(worst)


@click.command(short_help="Try a guard: what must work does, what must not doesn't.")
@_GUARD
@_JSON
def health(guard: str, *, as_json: bool) -> None:
    """Have a guard try itself: a look-up and a connect that its policy allows, and one of each that it denies.

    \b
    Exit status: 0 if all that could be tried went as it must; 1 if not; 125 if the guard does not answer.
    """
    from dnsfw.control import report
    from dnsfw.control.messages import Health, HealthReport

    answer = _expect(HealthReport, _ask(guard, Health()))
    if as_json:
        _dump(answer)
    else:
        _tell(report.health(answer))
    sys.exit(0 if all(check.passed or check.skipped for check in answer.checks) else 1)


@click.command(short_help="Have a guard read its policy again.")
@_GUARD
@_TOKEN
@_JSON
def reload(guard: str, token_file: Path | None, *, as_json: bool) -> None:
    """Have a guard read its policy again, and show what changed. An invalid policy is refused, and the old one stays.

    \b
    Exit status: 0; 125 if the guard refused.
    """
    from dnsfw.control import report
    from dnsfw.control.messages import Reload, ReloadReport

    answer = _expect(ReloadReport, _ask(guard, Reload(), _token(token_file)))
    if as_json:
        _dump(answer)
    else:
        _tell(report.reload(answer))


@click.command(short_help="Take a guard down.")
@_GUARD
@_TOKEN
def stop(guard: str, token_file: Path | None) -> None:
    """Take a guard down, as Ctrl-C where it was started does, and wait until it is.

    \b
    Exit status: 0 once it is down; 125 if it refused, or is not down after a while.
    """
    from dnsfw.control.client import chosen
    from dnsfw.control.messages import Stop

    asked = chosen(guard)
    asked.ask(Stop(), _token(token_file))
    deadline = time.monotonic() + _STOPPED_WITHIN
    while asked.directory.exists():
        if time.monotonic() > deadline:
            raise DnsfwError(f"{asked.name} was told to end and is still there.", "See what `dnsfw status` says.")
        time.sleep(0.02)


@click.command(short_help="Show which flows a guard judged of late.")
@_GUARD
@_JSON
def flows(guard: str, *, as_json: bool) -> None:
    """Show the flows that a guard judged of late, the latest first: where to, by whom, and what was decided.

    \b
    Exit status: 0; 125 if the guard does not answer.
    """
    from dnsfw.control import report
    from dnsfw.control.messages import Flows, FlowsReport

    answer = _expect(FlowsReport, _ask(guard, Flows()))
    if as_json:
        _dump(answer)
    else:
        _tell(report.flows(answer, datetime.now(UTC)))


@click.command(short_help="Show which addresses are open under which names.")
@_GUARD
@_JSON
def bindings(guard: str, *, as_json: bool) -> None:
    """Show the addresses that allowed names were resolved to, and for how much longer.

    \b
    Exit status: 0; 125 if the guard does not answer.
    """
    from dnsfw.control import report
    from dnsfw.control.messages import Bindings, BindingsReport

    answer = _expect(BindingsReport, _ask(guard, Bindings()))
    if as_json:
        _dump(answer)
    else:
        _tell(report.bindings(answer))


@click.command(short_help="Show a guard's metrics for Prometheus.")
@_GUARD
def metrics(guard: str) -> None:
    """Show a guard's metrics in Prometheus' text format (for a node exporter's textfile collector, say).

    \b
    Exit status: 0; 125 if the guard does not answer.
    """
    from dnsfw.control.messages import Metrics, MetricsReport

    click.echo(_expect(MetricsReport, _ask(guard, Metrics())).text, nl=False)


@click.command(short_help="Say what a guard did so far.")
@_GUARD
@click.option("--json", "form", flag_value="json", help="For machines: the shape is docs/report.schema.json.")
@click.option("--statement", "form", flag_value="statement", help="As JSON that the guard has signed (Ed25519).")
@click.option("--verify", metavar="KEY", help="Read a statement from standard input and say whether KEY signed it.")
def report(guard: str, form: str | None, verify: str | None) -> None:
    """Say what a guard allowed and denied so far, by whom, and whether it was ever down.

    A statement can be checked later by anybody who noted the guard's KEY (base64, the statement's `key`) while it was
    to be trusted: at its start.

    \b
    Exit status: 0; with --verify 1 if that key did not sign it; 125 if the guard does not answer.
    """
    from dnsfw.control import statements
    from dnsfw.control.messages import Report, StatementReport

    if verify is not None:
        sys.exit(statements.verified(sys.stdin.buffer.read(statements.LARGEST), verify))
    answer = _expect(StatementReport, _ask(guard, Report()))
    _tell(statements.shown(answer.statement, form or "text"))


@click.command(short_help="Give back the sudo that lockdown took, or take it.")
@click.argument("state", type=click.Choice(["on", "off"]))
@_GUARD
@_TOKEN
def sudo(state: str, guard: str, token_file: Path | None) -> None:
    """Give sudo back to the user whom `dnsfw up --lock-sudo` took it from, or take it again.

    \b
    Exit status: 0 once that is so; 125 if the guard refused.
    """
    from dnsfw.control.messages import HeldReport, Sudo

    answer = _expect(HeldReport, _ask(guard, Sudo(on=state == "on"), _token(token_file)))
    _tell(answer.held)


COMMANDS = (status, health, reload, stop, flows, bindings, metrics, report, sudo)


def _ask(guard: str, question: Question, token: str = "") -> Any:
    from dnsfw.control.client import chosen

    return chosen(guard).ask(question, token)


def _expect[T](kind: type[T], answer: Any) -> T:
    if not isinstance(answer, kind):
        raise DnsfwError("The guard answered something else.", "Is it of another version?")
    return answer


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get(_TOKEN_VARIABLE, "")
    return read_token(file)


def read_token(file: Path) -> str:
    """What the file holds, without the line's end. Raises UsageError."""
    from dnsfw.control.access import SHORTEST_TOKEN

    try:
        token = (sys.stdin.read(4096) if str(file) == "-" else file.read_text(encoding="utf-8")).strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"The token in {file} can't be read: {why}.", "Name another: --token-file FILE") from error
    if len(token) < SHORTEST_TOKEN:
        raise UsageError(
            f"The token in {file} is shorter than {SHORTEST_TOKEN} characters.", "Make one: openssl rand -hex 32"
        )
    return token


def _dump(value: object) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _tell(lines: Iterable[str], *, error: bool = False) -> None:
    for line in lines:
        click.echo(line, err=error)
