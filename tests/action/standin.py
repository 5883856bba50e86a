"""A stand-in for a GitHub runner: its user, process tree, environment files and phases, on a playground's laptop.

Law: starts what action.yml says with what a runner gives it; expects nothing. The machine's own /etc, /opt, /var/lib,
/home and /usr/local/share are not touched: the runner has them under an overlay, in mounts that end with it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from dnsfw.playground.world import Playground

ROOT = Path(__file__).parents[2]
NODE = Path(sys.prefix) / "bin" / "node"
USER, UID = "runner", 1001
_COMMAND_FILES = ("GITHUB_OUTPUT", "GITHUB_STATE", "GITHUB_ENV", "GITHUB_STEP_SUMMARY")
_WORKER = Path(__file__).with_name("worker.py").read_text(encoding="utf-8")

# $1 is a folder for everything, the rest is the worker's command line.
_ARRANGE = """
set -e
own=$1; shift
cp /etc/resolv.conf "$own/resolv.conf"
mount -t tmpfs none /run; mkdir /run/lock
mount -t tmpfs none "$own/layers"
for folder in etc opt var/lib home usr/local/share; do
  layer=$own/layers/$folder; mkdir -p "$layer/upper" "$layer/work"
  mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$layer/upper,workdir=$layer/work" "/$folder"
done
rm -f /etc/resolv.conf; cp "$own/resolv.conf" /etc/resolv.conf
echo 'runner:x:1001:1001::/home/runner:/bin/bash' >> /etc/passwd
echo 'runner:x:1001:' >> /etc/group; echo 'docker:x:1002:runner' >> /etc/group
echo 'runner:*:19000:0:99999:7:::' >> /etc/shadow
echo 'runner ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/runner; chmod 440 /etc/sudoers.d/runner
mkdir -p /home/runner; chown 1001:1001 /home/runner
cat "$own/ca.pem" >> /etc/ssl/certs/ca-certificates.crt
mkdir -p /usr/local/share/ca-certificates; cp "$own/ca.pem" /usr/local/share/ca-certificates/playground.crt
# Not of a namespace: the machine's own is left alone, and what would be written to it is seen.
printf %s "$(cat /proc/sys/user/max_user_namespaces)" > "$own/max_user_namespaces"
mount --bind "$own/max_user_namespaces" /proc/sys/user/max_user_namespaces
if [ -e /proc/sys/kernel/unprivileged_userns_clone ]; then
  mount --bind "$own/max_user_namespaces" /proc/sys/kernel/unprivileged_userns_clone
fi
{opened}
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Done:
    """How a step ended, its log, and how long it took."""

    status: int
    log: str
    seconds: float


@dataclass(slots=True)
class Step:
    """A use of the action: what its phases leave each other."""

    inputs: Mapping[str, str]
    state: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """What a job is told of the service, and what it left there."""

    environ: Mapping[str, str]
    kept: Path

    def artifact(self) -> tuple[str, str]:
        """Its name, and the text of the one file in it."""
        (path,) = self.kept.iterdir()
        with zipfile.ZipFile(path) as archive:
            (inside,) = archive.namelist()
            return path.name, archive.read(inside).decode()


# Takes artifacts: the service's two methods, and a place for the bytes. Prints its port.
_RESULTS = """
import http.server, json, os, sys
class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        url = f"http://127.0.0.1:{self.server.server_port}/{asked['name']}"
        body = json.dumps({"ok": True, "signed_upload_url": url}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_PUT(self):
        os.makedirs(sys.argv[1], exist_ok=True)
        with open(sys.argv[1] + self.path, "wb") as file:
            file.write(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
"""


class Job:
    """One job on a runner. `phase` runs a phase of the action, `run` a step with a shell script."""

    def __init__(self, laptop: Playground, folder: Path, worker: subprocess.Popen[str], stack: ExitStack) -> None:
        self.laptop = laptop
        self.workspace = folder / "work"
        self.worker = worker
        self._stack = stack
        self.folder = folder
        self.program = ""
        self.variables: dict[str, str] = {}  # what steps set for later ones
        self._files = 0
        self._manifest = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))

    def phase(self, name: str, step: Step, environ: Mapping[str, str] = {}) -> Done:
        """`name` is pre, main or post."""
        defaults = {key: str(made.get("default", "")) for key, made in self._manifest["inputs"].items()}
        given = {**defaults, **step.inputs}
        files = {name: self._file() for name in _COMMAND_FILES}
        env = {
            **self._environ(),
            **{f"INPUT_{key.upper()}": value for key, value in given.items()},
            **{f"STATE_{key}": value for key, value in step.state.items()},
            **{key: str(path) for key, path in files.items()},
            "GITHUB_ACTION": "__dnsfw",
            **environ,
        }
        done = self._ask([str(NODE), str(ROOT / self._manifest["runs"][name])], env)
        step.state |= _pairs(files["GITHUB_STATE"])
        step.outputs |= _pairs(files["GITHUB_OUTPUT"])
        self.variables |= _pairs(files["GITHUB_ENV"])
        step.summary += files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
        return done

    def use(self, action: str, inputs: Mapping[str, str]) -> Done:
        """A step that uses another action of this repository."""
        main = yaml.safe_load((ROOT / action / "action.yml").read_text(encoding="utf-8"))["runs"]["main"]
        given = {f"INPUT_{key.upper()}": value for key, value in inputs.items()}
        return self._ask([str(NODE), str(ROOT / action / main)], {**self._environ(), **given})

    def run(self, script: str, name: str = "__run") -> Done:
        """A step of the job's own."""
        env = {**self._environ(), "GITHUB_ACTION": name}
        return self._ask(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], env)

    def install(self, program: str = "") -> None:
        """dnsfw where the action looks for it, or at `program`: this very package, in a folder of root's."""
        place = "import('{0}/action/lib/place.js').then(({{Place}}) => console.log(new Place('{0}').program))"
        self.program = program or subprocess.check_output([NODE, "-e", place.format(ROOT)], text=True).strip()
        mine = Path(sys.prefix) / "bin" / "dnsfw"
        made = self.as_root("sh", "-ec", 'mkdir -p "$(dirname "$1")"; ln -s "$2" "$1"', "sh", self.program, str(mine))
        assert made.returncode == 0, made.stderr

    def as_root(self, *command: str) -> subprocess.CompletedProcess[str]:
        """On the runner's machine, behind its back."""
        there = ["nsenter", "--target", str(self.worker.pid), "--mount", "--net", *command]
        return subprocess.run(there, capture_output=True, text=True, check=False, timeout=30)

    def take_down(self) -> None:
        """What a test that failed left in force."""
        self.as_root("sh", "-c", 'if ls /run/dnsfw/up-* >/dev/null 2>&1; then exec "$1" down; fi', "sh", self.program)

    def guard_pid(self) -> int:
        """The supervisor's: its children, started the same way, have such a parent."""
        network = Path(f"/proc/{self.worker.pid}/ns/net").readlink()
        parents = {}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (path / "ns/net").readlink() == network and b"--detach" in (path / "cmdline").read_bytes():
                    parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        (pid,) = (pid for pid, parent in parents.items() if parent not in parents)
        return pid

    def open_engine_socket(self) -> None:
        """What a container engine's users talk to; it answers every request."""
        answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        program = f"""
import os, socketserver
class Engine(socketserver.StreamRequestHandler):
    def handle(self): self.rfile.readline(); self.wfile.write({answer.encode()!r})
os.umask(0o007)
server = socketserver.ThreadingUnixStreamServer("/run/docker.sock", Engine)
os.chown("/run/docker.sock", 0, 1002)
print("listening", flush=True)
server.serve_forever()
"""
        self._stack.enter_context(self.beside(program))

    @contextmanager
    def results(self) -> Iterator[Results]:
        """GitHub's results service, as far as artifacts go."""
        kept = self.folder / "artifact"
        with self.beside(_RESULTS, str(kept)) as port:
            scope = base64.urlsafe_b64encode(b'{"scp":"Actions.Results:run:job"}').decode().rstrip("=")
            yield Results(
                {"ACTIONS_RESULTS_URL": f"http://127.0.0.1:{port}/", "ACTIONS_RUNTIME_TOKEN": f"e30.{scope}.x"}, kept
            )

    @contextmanager
    def beside(self, program: str, *arguments: str) -> Iterator[str]:
        """A program of root's on the runner's machine; its first line."""
        there = ["nsenter", "--target", str(self.worker.pid), "--mount", "--net"]
        command = [*there, "/usr/bin/python3", "-c", program, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                yield process.stdout.readline().strip()
            finally:
                process.kill()

    def _environ(self) -> dict[str, str]:
        return {
            "CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_JOB": "build", "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_REPOSITORY": "octocat/hello-world", "GITHUB_WORKSPACE": str(self.workspace),
            "HOME": "/home/runner", "USER": USER, "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "RUNNER_TEMP": str(self.folder / "temp"), "RUNNER_ENVIRONMENT": "self-hosted", **self.variables,
        }  # fmt: skip

    def _file(self) -> Path:
        """As the runner makes them: a fresh one for each step, which the job's user can write."""
        self._files += 1
        path = self.folder / "temp" / f"command-{self._files}"
        path.touch()
        os.chown(path, UID, UID)
        return path

    def _ask(self, argv: list[str], environ: Mapping[str, str]) -> Done:
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        self.worker.stdin.write(json.dumps([argv, environ, str(self.workspace)]) + "\n")
        self.worker.stdin.flush()
        began = time.monotonic()
        status, log = json.loads(self.worker.stdout.readline())
        return Done(status, log, time.monotonic() - began)


@contextmanager
def job(laptop: Playground) -> Iterator[Job]:
    """A runner with a job on `laptop`. Nothing of it outlives the block."""
    with tempfile.TemporaryDirectory(prefix="dnsfw-runner-") as made, _job(laptop, Path(made)) as started:
        yield started


@contextmanager
def _job(laptop: Playground, folder: Path) -> Iterator[Job]:
    folder.chmod(0o755)
    for name in ("work", "temp", "layers"):
        (folder / name).mkdir()
    for name in ("work", "temp"):
        os.chown(folder / name, UID, UID)
    (folder / "ca.pem").write_bytes(laptop.authority.read_bytes())
    script = _ARRANGE.format(opened=_opened(folder, ROOT, Path(sys.base_prefix).resolve()))
    worker_command = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--init-groups", "/usr/bin/python3", "-c", _WORKER]
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(folder)]
    arranged = [*private, *worker_command]
    with (
        laptop.popen(arranged, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker,
        ExitStack() as stack,
    ):
        assert worker.stdin is not None
        stack.callback(worker.stdin.close)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"  # from here on it has mounts of its own
        made = Job(laptop, folder, worker, stack)
        stack.callback(made.take_down)
        yield made


def _opened(folder: Path, *wanted: Path) -> str:
    """Shell commands that let the runner walk to each of these, whatever folder on the way is closed to others."""
    closed: dict[Path, list[Path]] = {}
    for path in wanted:
        first = next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)
        if first is not None:
            closed.setdefault(first, []).append(path)
    lines = []
    for number, (before, paths) in enumerate(closed.items()):
        view = folder / "layers" / f"view{number}"
        for path in paths:
            there = view / path.relative_to(before)
            lines.append(
                f"mkdir -p {shlex.quote(str(there))}; mount --rbind {shlex.quote(str(path))} {shlex.quote(str(there))}"
            )
        lines.append(f"mount --rbind {shlex.quote(str(view))} {shlex.quote(str(before))}")
    return "\n".join(lines)


def _pairs(file: Path) -> dict[str, str]:
    """A command file: NAME<<END, lines, END."""
    found = re.finditer(r"^(.+?)<<(.+)\n((?:.*\n)*?)\2$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {match[1]: match[3].removesuffix("\n") for match in found}
