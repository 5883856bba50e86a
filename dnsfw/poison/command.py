"""The subcommand `dnsfw poison`.

Law: options and exit status. What it starts is imported when it starts, so that other subcommands don't pay for it.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnsfw.errors import SetupError, UsageError

if TYPE_CHECKING:
    from dnsfw.poison.report import Runs
    from dnsfw.poison.scenario import Scenario

_PEERS = ("dnsmasq", "unbound", "knot-resolver", "dnsdist")
_LOOPBACK = "127.0.0.1"


class _Place(click.ParamType[Any]):
    """An IPv4 address and a port."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        host, _, port = value.partition(":")
        parts = host.split(".")
        number = int(port) if port.isascii() and port.isdecimal() else 0
        if len(parts) != 4 or not all(part.isdecimal() and int(part) < 256 for part in parts) or not 0 < number < 65536:
            self.fail(f"{value!r} is not ADDR:PORT with an IPv4 address", param, ctx)
        return host, number


@dataclass(frozen=True, slots=True)
class _Call:
    """The options. `target` is a forwarder that runs, which forwards to `serve_on`."""

    target: tuple[str, int] | None
    serve_on: tuple[str, int]
    spawn: tuple[str, ...]
    own: bool
    only: tuple[str, ...]
    junit: Path | None
    as_json: bool
    markdown: bool
    as_list: bool


@click.command("poison", short_help="Try to poison a DNS forwarder.")
@click.option("--target", type=_Place(), metavar="ADDR:PORT", help="Judge the forwarder that answers there instead.")
@click.option(
    "--serve-on",
    type=_Place(),
    metavar="ADDR:PORT",
    default=f"{_LOOPBACK}:5399",
    show_default=True,
    help="With --target: where the attacker's upstream listens; the target must forward to it.",
)
@click.option(
    "--spawn",
    type=click.Choice(_PEERS),
    multiple=True,
    help="Judge this program instead, with the profile shipped here; may be repeated.",
)
@click.option("--own", is_flag=True, help="With --spawn: judge dnsfw as well.")
@click.option("--only", multiple=True, metavar="PATTERN", help="These scenarios (cname-*, or 9 for an attack's).")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@click.option("--list", "as_list", is_flag=True, help="Name the scenarios and play none.")
def poison_command(**options: Any) -> None:  # fmt: skip
    """Try to poison a DNS forwarder: dnsfw's own by default.

    A hostile upstream, an off-path spoofer and hostile clients play the scenarios of docs/poisoning.md, in network
    namespaces on this machine; with --target on its loopback addresses.

    \b
    Exit status: 0 if all that must hold holds, 1 if not; 2 for a mistake in the call or a scenario,
    125 if the bench can't be set up.
    """
    raise SystemExit(_main(_Call(**options)))


def _main(call: _Call) -> int:
    from dnsfw.poison import report  # noqa: PLC0415 - `dnsfw --help` needs none of this
    from dnsfw.poison.scenario import shipped  # noqa: PLC0415

    chosen = _chosen(shipped(), call.only)
    if call.as_list:
        report.console().print(report.listing(chosen))
        return 0
    runs = _play(call, chosen)
    if call.junit is not None:
        _write_junit(call.junit, chosen, runs)
    if call.as_json:
        click.echo(report.as_json(chosen, runs))
    elif call.markdown:
        click.echo(report.markdown(chosen, runs))
    else:
        report.show(chosen, runs, report.console())
    return int(any(map(report.failed, runs.values())))


def _chosen(scenarios: list[Scenario], patterns: tuple[str, ...]) -> list[Scenario]:
    """Raises UsageError for a pattern that fits none."""
    for pattern in patterns:
        if not any(_fits(scenario, pattern) for scenario in scenarios):
            raise UsageError(f"No scenario is called {pattern}.", "Name them: dnsfw poison --list")
    return [each for each in scenarios if not patterns or any(_fits(each, pattern) for pattern in patterns)]


def _fits(scenario: Scenario, pattern: str) -> bool:
    return str(scenario.attack) == pattern or fnmatchcase(scenario.id, pattern)


def _play(call: _Call, scenarios: list[Scenario]) -> Runs:
    from dnsfw.poison import bench, crew, peers, report  # noqa: PLC0415

    if call.target is not None and (call.spawn or call.own):
        raise UsageError("--target names one forwarder; --spawn and --own name others.", "Leave one of them out.")
    if call.target is not None:
        return {"{}:{}".format(*call.target): _play_here(call, scenarios)}
    if os.geteuid() != 0:
        raise SetupError("dnsfw poison needs root: it makes network namespaces.", "Call it through sudo.")
    for peer in call.spawn:
        peers.find(peer)
    runs = {}
    for target in (*([] if call.spawn and not call.own else [bench.OWN]), *call.spawn):
        with report.Shown(len(scenarios)) as shown:
            runs[target] = crew.play_all(scenarios, target, shown.told)
    return runs


def _play_here(call: _Call, scenarios: list[Scenario]) -> Any:
    """Nothing is forged outside loopback: there, scenarios that need it are n/a."""
    from dnsfw.poison import crew, report  # noqa: PLC0415
    from dnsfw.poison.bench import Stage  # noqa: PLC0415
    from dnsfw.poison.upstream import Place  # noqa: PLC0415

    target = call.target or (_LOOPBACK, 53)
    _refuse_silence(target)
    local = all(host.startswith("127.") for host, _ in (target, call.serve_on))
    place = Place(call.serve_on, "127.0.0.66" if local else None, target)
    stage = Stage("", place, crew.new_run(), spoofing=local and os.geteuid() == 0)
    with report.Shown(len(scenarios)) as shown:
        return crew.play_here(scenarios, stage, shown.told)


def _refuse_silence(target: tuple[str, int]) -> None:
    """Where nothing listens, each scenario would wait in vain: an ICMP error says so at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, suppress(TimeoutError):
        asking.settimeout(0.2)
        asking.connect(target)
        try:
            asking.send(bytes(12))
            asking.recv(512)
        except ConnectionRefusedError as error:
            raise SetupError(f"Nothing listens at {target[0]}:{target[1]}.", "Start the forwarder first.") from error


def _write_junit(file: Path, scenarios: list[Scenario], runs: Runs) -> None:
    from dnsfw.poison.report import write_junit  # noqa: PLC0415

    try:
        write_junit(scenarios, runs, file)
    except OSError as error:
        raise UsageError(f"{file} can't be written: {error.strerror}.", "Name another: --junit FILE") from error
