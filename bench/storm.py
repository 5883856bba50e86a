"""10,000 new flows offered each second for half a minute, of which nearly all are denied: what the engine's memory does
meanwhile, and how soon the guard answers again.

Law: the load is bounded in rate and time, and stays in the playground.
"""

from __future__ import annotations

import sys

from bench.bed import Bed, BenchError
from bench.figure import Figure, at_most, number
from bench.memory import family, kilobytes
from dnsfw.playground import atlas

_RATE, _SECONDS = 10_000, 30
# Datagrams from a few sockets to ever other ports: each is the first of a flow. Says how many went into the kernel,
# whether or not they came out, then how long an allowed connection takes at once, and stays until its stdin ends.
_STORM = """
import socket, sys, time
evil, allowed, port, rate, seconds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(64)]
for sock in sockets:
    sock.setblocking(False)
print("ready", flush=True)
sys.stdin.readline()
sent, started = 0, time.monotonic()
while (now := time.monotonic() - started) < seconds:
    while sent < now * rate:
        try:
            sockets[sent % 64].sendto(b"storm", (evil, 1 + sent // 64 % 65000))
        except OSError:
            pass  # refused, or no room
        sent += 1
    time.sleep(0.001)
offered = sent / (time.monotonic() - started)
print("over", flush=True)
began = time.monotonic()
socket.create_connection((allowed, port), 10).close()
print(offered, (time.monotonic() - began) * 1000, flush=True)
sys.stdin.read()
"""


def measure(bed: Bed) -> list[Figure]:
    numbers = [str(number) for number in (atlas.DISCARD_PORT, _RATE, _SECONDS)]
    command = [sys.executable, "-I", "-c", _STORM, atlas.EVIL.v4, atlas.ALLOWED_NAME, *numbers]
    with bed.popen(command, guarded=True) as run:
        if run.stdin is None or run.stdout is None or run.stdout.readline() != "ready\n":
            raise BenchError("the storm did not begin")
        engine = max(family(run.pid), key=_size)
        before = _size(engine)
        run.stdin.write("go\n")
        run.stdin.flush()
        if run.stdout.readline() != "over\n":
            raise BenchError("the storm broke off")
        after = _size(engine)
        offered, back = (float(word) for word in run.stdout.readline().split())
        run.communicate()
    grown = f"{number(before)} MB before, {number(after)} MB after {_SECONDS} s of {number(offered)} new flows a second"
    return [
        Figure("storm: the engine's memory grows by", after - before, "MB", at_most(8), grown),
        Figure("storm: an allowed connect at its end", back, "ms", at_most(2000), "the queue's backlog goes first"),
    ]


def _size(pid: int) -> float:
    """Resident MB."""
    return kilobytes(pid, "Rss") / 1024
