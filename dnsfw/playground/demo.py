"""`dnsfw demo`: both rounds, one report.

Law: the order of things, and who is told about it. What is shown comes from `table` or as JSON.
"""

from __future__ import annotations

import json
import sys

from rich.console import Console

from dnsfw.playground import table
from dnsfw.playground.rounds import Package
from dnsfw.playground.verdicts import Report, report, to_json
from dnsfw.playground.world import Playground, Setting


def main(uid: int, *, as_json: bool) -> int:
    """Run the demo, the package as user `uid`; 0 if nothing unexpected got through and the build worked, else 1.

    Raises SetupError and PlaygroundError.
    """
    found = _play(uid, Console(stderr=True))
    if as_json:
        json.dump(to_json(found), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        table.show(found, Console())
    return 0 if found.good else 1


def _play(uid: int, progress: Console) -> Report:
    """Progress appears on a terminal only."""
    with (
        progress.status("Building a tiny internet on this machine…") as status,
        Playground(Setting(stub_resolver=True)) as world,
    ):
        package = Package(world, uid)
        status.update("A malicious package tries its ways out, unguarded…")
        unguarded = package.unguarded()
        status.update("The same package again, under dnsfw run…")
        return report(unguarded, package.guarded())
