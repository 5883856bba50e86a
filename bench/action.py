"""The CI action on a stand-in runner: from the step's start to a guarded job, and the end besides uploads."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.bed import Bed, BenchError
from bench.figure import Figure, at_most
from dnsfw.playground import atlas
from tests.action.standin import ROOT, Done, Step, job

_ROUNDS = 3
_INSTALLS_WITHIN = 300


def measure(bed: Bed) -> list[Figure]:
    begins, ends = zip(*(_job(bed) for _ in range(_ROUNDS)), strict=True)
    installed = _install()
    warm = median(begins)
    note = "scripts/install.sh into an empty folder, Debian's packages there"
    return [
        Figure("action: guarded, with dnsfw there", warm, "s", at_most(3.0), "pre and main, median", begins),
        Figure("action: guarded, the first time", installed + warm, "s", at_most(25.0), note, (installed,)),
        Figure("action: the end", median(ends), "s", at_most(2.0), "post without uploads, median", ends),
    ]


def _job(bed: Bed) -> tuple[float, float]:
    step = Step({"policy": f"{atlas.ALLOWED_NAME}\n", "upstream": atlas.UPSTREAM.v4, "journal": "never"})
    with job(bed.world) as runner:
        runner.install()
        began = sum(_seconds(runner.phase(phase, step)) for phase in ("pre", "main"))
        runner.run(f"curl -sS --max-time 5 https://{atlas.EVIL_SHARED_NAME}/ || true")
        return began, _seconds(runner.phase("post", step))


def _seconds(done: Done) -> float:
    if done.status != 0:
        raise BenchError(done.log)
    return done.seconds


def _install() -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        command = ["bash", str(ROOT / "scripts/install.sh"), str(Path(folder) / "dnsfw")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALLS_WITHIN)
        if done.returncode != 0:
            raise BenchError(done.stderr.strip())
        return time.monotonic() - began
