"""The subcommand `dnsfw selftest`.

Law: options and exit status. What it starts is imported when it starts, so that other subcommands don't pay for it.
"""

from __future__ import annotations

import json
import os
from typing import TextIO

import click


@click.command("selftest", short_help="Try to get past the guard of this machine.")
@click.option("--run", "in_run", is_flag=True, help="Try a throw-away `dnsfw run`, even if this host is guarded.")
@click.option("--only", multiple=True, metavar="ID", help="Try this one (an id of --json's); may be given again.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--junit", type=click.File("w", "utf-8", lazy=False), metavar="FILE", help="Write it there as JUnit XML.")
def selftest_command(*, in_run: bool, only: tuple[str, ...], as_json: bool, junit: TextIO | None) -> None:
    """Try some sixty ways out, and see which arrive.

    Where `dnsfw up` guards this host, that very guard is tried, by programs of an unprivileged user that may open raw
    sockets; else a throw-away `dnsfw run`. It is safe: the other end is a network namespace of its own, which
    documentation addresses (RFC 5737, RFC 3849) are routed to while it lasts, and nothing is sent to anybody else.

    \b
    Exit status: 0 if nothing got out that should not; 1 for any hole; 125 where nothing could be proven.
    """
    from dnsfw.host import preflight, runs  # noqa: PLC0415
    from dnsfw.selftest import battery, report  # noqa: PLC0415
    from dnsfw.supervisor.up import name  # noqa: PLC0415

    preflight.check("selftest")
    uid = _unprivileged_user(battery.NOBODY)
    on_host = not in_run and runs.is_live(name())
    found = battery.on_this_host(uid, only) if on_host else battery.in_a_run(uid, only)
    if junit is not None:
        junit.write(report.to_junit(found))
    click.echo(json.dumps(report.to_json(found), indent=2) if as_json else report.text(found))
    raise SystemExit(1 if found.holes else 0)


def _unprivileged_user(nobody: int) -> int:
    """Whom attempts run as: the user behind sudo, or nobody."""
    uid = os.environ.get("SUDO_UID", "")
    return int(uid) if uid.isascii() and uid.isdigit() and uid != "0" else nobody
