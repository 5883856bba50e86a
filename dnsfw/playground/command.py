"""The subcommand `dnsfw demo`.

Law: options and exit status. What it starts is imported when it starts, so that other subcommands don't pay for it.
"""

from __future__ import annotations

import os

import click

_NOBODY = 65534


@click.command("demo", short_help="See a malicious package try its ways out.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def demo_command(*, as_json: bool) -> None:
    """Watch a malicious package try its ways out, unguarded and guarded.

    Everything happens in network namespaces on this machine: a tiny internet, and a laptop on it. No packet leaves the
    machine, and nothing remains. Exit status 0: nothing unexpected got through and the honest build worked; 1: not so.
    """
    from dnsfw.host.preflight import check  # noqa: PLC0415
    from dnsfw.playground.demo import main  # noqa: PLC0415 - rich, and the playground

    check("demo")
    raise SystemExit(main(_dependency_user(), as_json=as_json))


def _dependency_user() -> int:
    """Who a dependency runs as: the user behind sudo, or nobody."""
    uid = os.environ.get("SUDO_UID", "")
    return int(uid) if uid.isascii() and uid.isdigit() and uid != "0" else _NOBODY
