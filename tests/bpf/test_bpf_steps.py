"""Steps of a job on the real kernel: a runner's worker starts them, and they do what they can to be another one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bpf.compile import Extent, Worker
from bpf.loader import start_loading
from bpf.owners import Owners
from bpf.process import read_stat
from policy.values import Owner
from tests.bpf.conftest import PRELUDE, Bed, Speaker, own_cgroup, read_flow

pytestmark = pytest.mark.kernel("root", "netns", "nft", "bpf", "cgroup2")

# The worker: for each line of JSON, [argv, environment], it starts that and waits for its end.
WORKER = """
import json, os, sys
for line in sys.stdin:
    argv, environ = json.loads(line)
    child = os.fork()
    if child == 0: os.execve(argv[0], argv, environ)
    os.waitpid(child, 0)
"""
# What a step can do first. Then it says what it sends; `go` names whose flow it is.
SPEAK = """
s = tcp("4"); s.connect(("198.51.100.7", int(sys.argv[1]))); say_connected(s, 6)
"""
FORGED = {"GITHUB_ACTION": "forged"}
AGAIN = f"""
os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", sys.argv[2], sys.argv[1]], {FORGED})
"""
DEEDS = {
    "speaks itself": SPEAK,
    "in a child": f"""
if os.fork() == 0:
    {SPEAK.strip()}
    os._exit(0)
os.wait()
""",
    "behind wrappers": """
import subprocess
inner = [sys.executable, "-I", "-S", "-c", sys.argv[2], sys.argv[1]]
subprocess.run(["sh", "-c", 'sh -c \\'"$@"; :\\' sh env "$@"; :', "sh", *inner])
""",
    "as a daemon": f"""
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(w); os.read(r, 1)  # until all above have ended
        {SPEAK.strip()}
        os._exit(0)
    os._exit(0)
os.wait(); os._exit(0)
""",
    "with another environment": AGAIN,
    "as a worker of its own": """
from shutil import copy2
import tempfile, subprocess
with tempfile.TemporaryDirectory() as folder:
    worker = copy2("/bin/bash", folder + "/Runner.Worker")
    inner = ["env", "-i", "GITHUB_ACTION=forged", sys.executable, "-I", "-S", "-c", sys.argv[2], sys.argv[1]]
    subprocess.run([worker, "-c", '"$@"; :', "bash", *inner])
""",
    "as the worker's child (CLONE_PARENT)": f"""
import ctypes
arguments = (ctypes.c_uint64 * 10)(0x8000, 0, 0, 0, 0, 0, 0, 0, 0, 0)
if ctypes.CDLL(None).syscall(435, arguments, 64) == 0:
    {AGAIN.strip()}
""",
    "having changed its name and memory": f"""
import ctypes
libc = ctypes.CDLL(None)
libc.prctl(15, b"Runner.Worker"); libc.putenv(b"GITHUB_ACTION=forged")
if os.fork() == 0:
    {AGAIN.strip()}
os.wait()
""",
    "from a thread": f"""
import threading
def talk():
    {AGAIN.strip()}
thread = threading.Thread(target=talk); thread.start(); thread.join()
""",
}


@dataclass
class Job:
    """A worker at work, and who its steps are found to be."""

    bed: Bed
    owners: Owners
    worker: Speaker
    sink: int

    def step(self, deed: str, environ: dict[str, str]) -> Owner | None:
        """Who a step is that does so; `deed` has the port and, for its own use, what speaks, as arguments."""
        argv = [sys.executable, "-I", "-S", "-c", PRELUDE + deed, str(self.sink), PRELUDE + SPEAK]
        self.worker.say(json.dumps([argv, environ]))
        return self.owners.of(self.worker.flow())


@pytest.fixture(scope="module")
def watched() -> Iterator[Path]:
    with own_cgroup("steps") as cgroup:
        yield cgroup


@pytest.fixture
def job(bed: Bed, sink: int, watched: Path) -> Iterator[Job]:
    inside = replace(bed, cgroup=watched)
    worker = inside.speaker(WORKER)
    stat = read_stat(worker.pid)
    assert stat is not None
    with ExitStack() as stack:
        stack.callback(worker.end)
        extent = Extent(worker=Worker(worker.pid, stat.start_time))
        attached = stack.enter_context(start_loading(watched, extent).finish(20))
        yield Job(inside, Owners(replace(bed.sources, attached=attached)), worker, sink)


def test_what_a_step_does_it_does_as_itself(job: Job) -> None:
    """One worker and one load for all: neither takes long, both together would."""
    for number, (deed, script) in enumerate(DEEDS.items()):
        owner = job.step(script, {"GITHUB_ACTION": f"step{number}", "PATH": os.environ["PATH"]})
        assert owner is not None, deed
        assert (owner.step, owner.action) == (f"step{number}", None), deed


def test_who_is_in_no_step(job: Job) -> None:
    """Helpers of the worker's, a step with more environment than is looked at, and whoever the worker didn't start."""
    for environ in ({"PATH": "/"}, {"GITHUB_ACTION": "long", "X": "x" * 40_000}):
        owner = job.step(SPEAK, environ)
        assert owner is not None
        assert owner.step is None
    stranger = job.bed.speaker(AGAIN, str(job.sink), PRELUDE + SPEAK)
    owner = job.owners.of(stranger.flow())
    assert owner is not None
    assert (owner.step, owner.action) == (None, None)


def test_a_step_is_known_after_its_end(job: Job) -> None:
    argv = [sys.executable, "-I", "-S", "-c", PRELUDE + SPEAK, str(job.sink)]
    job.worker.say(json.dumps([argv, {"GITHUB_ACTION": "short"}]))
    said = job.worker.line()
    job.step(SPEAK, {"GITHUB_ACTION": "next"})  # by now the first one has been waited for
    owner = job.owners.of(read_flow(said))
    assert owner is not None
    assert owner.step == "short"
    assert job.owners.evicted()["children"] == 0
