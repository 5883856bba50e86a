"""Connects a second beside OpenSnitch, another interactive firewall on NFQUEUE: Debian's package in its iptables mode,
on the same laptop, with the same clients: one that connects again and again, which is its cheapest case, and programs
that connect once.

Law: its daemon runs in the laptop's network namespace and in a mount namespace of its own, so that neither the machine
nor the laptop keeps anything of it. Unpacked by `scripts/setup.sh bench`, not installed: an installed one would begin
to work on the machine itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from bench.bed import Bed, BenchError
from bench.figure import Figure, Target, at_least, number
from bench.programs import compiled
from dnsfw.playground import atlas

type Said = dict[str, float]  # by the client: connects a second, and µs a connect

_UNPACKED = Path(__file__).parents[1] / ".setup" / "opensnitch"
_ROUNDS, _CONNECTS, _PROGRAMS = 3, 1000, 500
_STARTS_WITHIN = 10.0
# The same policy as ours: this host, and nothing else but its resolver.
_POLICY = {
    "host": {"type": "simple", "operand": "dest.host", "data": atlas.ALLOWED_NAME},
    "resolver": {"type": "simple", "operand": "dest.port", "data": "53"},
}
# Its settings are where it looks for them, in a layer that only it sees; its log goes nowhere.
_START = """
mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work
cp -r "$1/etc/opensnitchd" /mnt/upper/ && cp -r "$2" /mnt/rules
sed -i 's/"DefaultAction": "allow"/"DefaultAction": "deny"/' /mnt/upper/opensnitchd/default-config.json
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
exec "$1/usr/bin/opensnitchd" -process-monitor-method proc -rules-path /mnt/rules -error
"""
_RULES = ["sh", "-c", "iptables -t mangle -S OUTPUT | grep -c NFQUEUE"]


def measure(bed: Bed) -> Iterator[Figure]:
    """Rounds alternate. Where it isn't there, that is said on standard error and there is no figure."""
    if not (_UNPACKED / "usr/bin/opensnitchd").exists():
        print("opensnitch: not measured; `scripts/setup.sh bench` unpacks it", file=sys.stderr)
        return
    yield _ratio(bed, "connects a second, of OpenSnitch's", partial(_connects, bed), at_least(5))
    with compiled("apart") as program:
        # No target: to start the programs takes longer than any.
        yield _ratio(bed, "the same, a program each", partial(_apart, bed, program), None)


def _ratio(bed: Bed, name: str, work: Callable[[bool], Said], target: Target | None) -> Figure:
    rounds = [(work(False), work(True), _beside(bed, work)) for _ in range(_ROUNDS)]  # noqa: FBT003 - guarded by us?
    ratios = tuple(ours["rate"] / theirs["rate"] for _, ours, theirs in rounds)
    rates, p50s = ([number(median(each[side][key] for each in rounds)) for side in range(3)] for key in ("rate", "p50"))
    against = f"connects/s: {rates[1]} under dnsfw run, {rates[2]} with OpenSnitch, {rates[0]} with neither"
    against += f"; p50 {p50s[1]}, {p50s[2]} and {p50s[0]} µs"
    return Figure(name, median(ratios), "times", target, against, ratios)


def _connects(bed: Bed, guarded: bool) -> Said:  # noqa: FBT001 - as above
    """One client, one connection after the other: its process is looked up once."""
    return bed.client("connects", atlas.DISCARD_PORT, _CONNECTS, guarded=guarded)


def _apart(bed: Bed, program: Path, guarded: bool) -> Said:  # noqa: FBT001 - as above
    """As programs do that a build starts: each is another process."""
    argv = [str(program), atlas.ALLOWED_NAME, str(atlas.DISCARD_PORT), str(_PROGRAMS)]
    said: Said = json.loads(bed.run(argv, guarded=guarded))
    return said


def _beside(bed: Bed, work: Callable[[bool], Said]) -> Said:
    with _daemon(bed):
        _connects(bed, guarded=False)  # it allows a host's addresses once it has seen them in an answer
        return work(False)  # noqa: FBT003 - as above


@contextmanager
def _daemon(bed: Bed) -> Iterator[None]:
    rules = bed.world.directory / "opensnitch"
    rules.mkdir(exist_ok=True)
    for name, operator in _POLICY.items():
        when = "2026-01-01T00:00:00Z"
        rule = {"created": when, "updated": when, "name": name, "enabled": True, "precedence": False}
        rule |= {"action": "allow", "duration": "always", "operator": {**operator, "sensitive": False, "list": []}}
        (rules / f"{name}.json").write_text(json.dumps(rule), encoding="utf-8")
    command = ["unshare", "--mount", "sh", "-ec", _START, "sh", str(_UNPACKED), str(rules)]
    with bed.world.popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _await(bed, "1", process)
            yield
        finally:
            process.terminate()  # it takes its rules back
            process.wait(10)
        _await(bed, "0", None)


def _await(bed: Bed, rules: str, process: subprocess.Popen[bytes] | None) -> None:
    """Until that many of its rules hand packets over. Raises BenchError."""
    deadline = time.monotonic() + _STARTS_WITHIN
    while bed.world.run(_RULES).stdout.strip() != rules:
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            raise BenchError(f"OpenSnitch's rules are not as they should be (expected {rules} for the queue)")
        time.sleep(0.1)
