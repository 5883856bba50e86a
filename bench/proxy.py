"""What a URL rule costs: requests and octets through `dnsfw run`'s proxy against plain mitmproxy's, and its memory.

The same site, the same client, the same machine, in turns. mitmproxy is set up as its manual says for transparent mode,
on the laptop; its client needs no namespace and no NAT, ours has both.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.bed import Bed, BenchError
from bench.figure import Figure, at_least, at_most, number
from bench.memory import family
from dnsfw.place import proxy_user
from dnsfw.playground import atlas

_ROUNDS = 3
_CONNECTIONS, _SECONDS = 8, 4
_BYTES = 200_000_000
_HUGE = 2_000_000_000
_PORT, _CLIENT = 8443, 64_000  # mitmproxy's; whose connections go there
_SITE = f"https://{atlas.ALLOWED_NAME}"
_POLICY = f"* {_SITE}/*\n"
_REDIRECT = f"""
table inet plain {{
  chain output {{
    type nat hook output priority -100
    meta skuid {_CLIENT} tcp dport 443 redirect to :{_PORT}
  }}
}}
"""
# The command: one request, then as many octets down and up, each when it is told to.
_LOAD = f"""
import subprocess, sys
upload = ["-X", "POST", "-H", "Expect:", "-T", sys.argv[1], "{_SITE}/sink"]
for words in (["{_SITE}/"], ["{_SITE}/bytes/{_HUGE}"], upload):
    subprocess.run(["curl", "-sS", "--fail", "-o", "/dev/null", *words], check=True)
    print("done", flush=True)
    sys.stdin.readline()
"""


def measure(bed: Bed) -> list[Figure]:
    if shutil.which("wrk") is None:
        raise BenchError("wrk is missing: scripts/setup.sh bench")
    _policy(bed).write_text(_POLICY, encoding="utf-8")
    with _mitmproxy(bed):
        rates = _rounds(lambda guarded: _requests(bed, guarded=guarded))
        speeds = _rounds(lambda guarded: _speed(bed, guarded=guarded))
    return [
        _ratio("requests through a URL rule", rates, "requests/s"),
        _ratio("download through a URL rule", speeds, "MB/s"),
        *_memory(bed),
        _start(bed),
    ]


def _rounds(rate: Callable[[bool], float]) -> list[tuple[float, float]]:
    """(mitmproxy's, ours) each."""
    return [(rate(False), rate(True)) for _ in range(_ROUNDS)]  # noqa: FBT003


def _ratio(name: str, rounds: list[tuple[float, float]], unit: str) -> Figure:
    ratios = tuple(ours / plain for plain, ours in rounds)
    plain, ours = (number(median(side)) for side in zip(*rounds, strict=True))
    spread = f"ratios from {number(min(ratios))} to {number(max(ratios))}"
    against = f"{plain} {unit} through mitmproxy, {ours} through dnsfw run; {spread}"
    return Figure(name, median(ratios), "of plain", at_least(0.9), against, ratios)


def _requests(bed: Bed, *, guarded: bool) -> float:
    load = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{_SECONDS}", f"{_SITE}/bytes/1024"]
    said = _run(bed, load, guarded=guarded)
    if "Non-2xx" in said:
        raise BenchError(f"not all were answered: {said}")
    return float(re.findall(r"Requests/sec: +([0-9.]+)", said)[0])


def _speed(bed: Bed, *, guarded: bool) -> float:
    load = ["curl", "-4ksS", "--fail", "-o", "/dev/null", "-w", "%{speed_download}", f"{_SITE}/bytes/{_BYTES}"]
    return float(_run(bed, load, guarded=guarded)) / 1e6


def _policy(bed: Bed) -> Path:
    return bed.world.directory / "url.policy"


def _run(bed: Bed, load: Sequence[str], *, guarded: bool) -> str:
    return bed.run(_as_client(load, guarded=guarded), guarded=guarded, options=["--policy", str(_policy(bed))])


def _as_client(load: Sequence[str], *, guarded: bool) -> list[str]:
    user = ["setpriv", "--reuid", str(_CLIENT), "--regid", str(_CLIENT), "--clear-groups"]
    return list(load) if guarded else [*user, *load]


@contextmanager
def _mitmproxy(bed: Bed) -> Iterator[None]:
    """On the laptop, in transparent mode, until the end."""
    program = str(Path(sys.executable).with_name("mitmdump"))
    trust = f"ssl_verify_upstream_trusted_ca={bed.world.authority}"
    words = ["-q", "--mode", "transparent", "--listen-port", str(_PORT), "--set", trust]
    words += ["--set", f"confdir={bed.world.directory}/mitmproxy"]
    bed.world.run(["nft", "-f", "-"], stdin=_REDIRECT)
    with bed.world.popen([program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as plain:
        try:
            _wait(bed)
            yield
        finally:
            plain.terminate()
            bed.world.run(["nft", "delete table inet plain"])


def _wait(bed: Bed) -> None:
    try_it = _as_client(["curl", "-4ksS", "-o", "/dev/null", f"{_SITE}/"], guarded=False)
    until = time.monotonic() + 20
    while bed.world.run(try_it).returncode != 0:
        if time.monotonic() > until:
            raise BenchError("mitmproxy does not answer")
        time.sleep(0.2)


def _start(bed: Bed) -> Figure:
    """From `dnsfw run` to the command, which isn't started before the proxy serves."""
    rounds = [(_seconds(bed, []), _seconds(bed, ["--policy", str(_policy(bed))])) for _ in range(_ROUNDS)]
    without, taken = zip(*rounds, strict=True)
    against = f"{number(median(without))} s without URL rules; slowest of {_ROUNDS}: {number(max(taken))} s"
    return Figure("start with a URL rule, p50", median(taken), "s", at_most(2.5), against, taken)


def _seconds(bed: Bed, options: Sequence[str]) -> float:
    started = time.time_ns()
    return (int(bed.run(["date", "+%s%N"], guarded=True, options=options)) - started) / 1e9


def _memory(bed: Bed) -> list[Figure]:
    """How far the proxy's peak is above what one request left it with."""
    huge = bed.world.directory / "huge"
    with huge.open("wb") as file:
        file.truncate(_HUGE)
    load = [sys.executable, "-I", "-c", _LOAD, str(huge)]
    command = bed.command(load, guarded=True, options=["--policy", str(_policy(bed))])
    with bed.world.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        if run.stdin is None or run.stdout is None:
            raise BenchError("no pipes")
        peaks = []
        for _ in range(3):
            if run.stdout.readline() != "done\n":
                raise BenchError("the transfer failed")
            peaks.append(_peak(run.pid))
            run.stdin.write("\n")
            run.stdin.flush()
    huge.unlink()
    first, down, up = peaks
    against = f"{number(first)} MB after one request, {number(down)} after 2 GB down, {number(up)} after 2 GB up: peaks"
    return [Figure("memory that 2 GB bodies cost the proxy", up - first, "MB", at_most(50), against)]


def _peak(pid: int) -> float:
    """MB, of the proxy below `pid`: it stands under its keeper, which has the same user, and serves nobody."""
    user = proxy_user().uid
    statuses = [_status(member) for member in family(pid)]
    theirs = [status for status in statuses if status["Uid"].split()[0] == str(user)]
    if len(theirs) != 2:
        raise BenchError(f"{len(theirs)} processes of the proxy's user, not a keeper and a proxy")
    return int(theirs[-1]["VmHWM"].split()[0]) / 1024


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return dict(line.split(":", 1) for line in lines)
