"""One round of the demo: the malicious package let loose on the laptop, guarded or not.

Law: starts the package and pairs what it was told with what arrived. Judging is `verdicts`'s.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dnsfw.errors import SetupError
from dnsfw.playground.arrival import Arrival
from dnsfw.playground.control import PACKAGE_ROOT
from dnsfw.playground.laptop import HELPER_SOCKET
from dnsfw.playground.package.build import NEEDS
from dnsfw.playground.package.catalogue import WAYS
from dnsfw.playground.package.way import Way
from dnsfw.playground.world import own_command

POLICY = Path(__file__).with_name("demo.policy")
_SCRIPT = "postinstall.py"  # as package managers let a dependency run one
_STRAGGLERS = 1.6  # seconds: a daemon left behind by the package keeps trying for 1.2
_TIMEOUT = 20.0  # seconds for a round
# What a CI runner's password-less sudo, or a container, gives to any program; dnsfw must take it away.
_USUAL_CAPABILITIES = "+net_raw,+net_admin"
_OLD = "import sys; sys.exit(sys.version_info < (3, 10))"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one way in one round. `arrived` names the internet's servers that got the token, () if none did.

    `ended` is the error that the program saw, "" if none; `seconds` is how long it took.
    """

    arrived: tuple[str, ...]
    ended: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Round:
    """All attempts by way, and what was said on stderr meanwhile (dnsfw's summary)."""

    attempts: Mapping[str, Attempt]
    stderr: str


class World(Protocol):
    """Where a package is let loose: the playground's laptop, or a guarded host."""

    directory: Path

    @property
    def authority(self) -> Path: ...
    def run(
        self, command: Sequence[str], *, stdin: str = "", timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]: ...
    def arrivals(self, token: str | None = None, *, within: float = 0.0) -> list[Arrival]: ...


class Package:
    """The package, installed in that world for user `uid`. Raises SetupError if that user can start no Python."""

    def __init__(self, world: World, uid: int) -> None:
        self._world, self._uid = world, uid
        self._home = world.directory / "package"
        _install(self._home)
        self._python = self._usable_python()

    def unguarded(self, ways: Sequence[Way] = WAYS) -> Round:
        """As any dependency runs today. Raises SetupError."""
        return self.round(self.as_user(_USUAL_CAPABILITIES), (*NEEDS, *ways))

    def guarded(self, ways: Sequence[Way] = WAYS) -> Round:
        """Under `dnsfw run`, started as sudo would start it. Raises SetupError."""
        sudo = ["env", f"SUDO_UID={self._uid}", f"SUDO_GID={self._uid}"]
        return self.round([*sudo, *own_command("run", "--policy", str(POLICY), "--")], (*NEEDS, *ways))

    def round(self, prefix: Sequence[str], ways: Sequence[Way] = (*NEEDS, *WAYS), device: str = "") -> Round:
        tokens = {way.id: secrets.token_hex(8) for way in ways}
        helper = str(self._world.directory / HELPER_SOCKET)
        errand = {"tokens": tokens, "authority": str(self._world.authority), "helper": helper, "device": device}
        command = [*prefix, self._python, str(self._home / _SCRIPT)]
        try:
            done = self._world.run(command, stdin=json.dumps(errand), timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise SetupError(f"The malicious package was not done within {_TIMEOUT:g} seconds.") from None
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if not told:
            raise SetupError(f"The malicious package did not run (exit status {done.returncode}).", done.stderr.strip())
        return Round(self._paired(tokens, {one["way"]: one for one in told}), done.stderr)

    def _paired(self, tokens: Mapping[str, str], told: Mapping[str, Mapping[str, object]]) -> dict[str, Attempt]:
        if "outlive" in tokens:
            self._world.arrivals(tokens["outlive"], within=_STRAGGLERS)
        attempts = {}
        for way, token in tokens.items():
            arrived = dict.fromkeys(arrival.way for arrival in self._world.arrivals(token))
            one = told.get(way, {"ended": "it ended without a word", "seconds": 0.0})
            attempts[way] = Attempt(tuple(arrived), str(one["ended"]), float(str(one["seconds"])))
        return attempts

    def as_user(self, capabilities: str = "") -> list[str]:
        user = ["setpriv", f"--reuid={self._uid}", f"--regid={self._uid}", "--clear-groups"]
        extra = [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"] if capabilities else []
        return [*user, *extra]

    def _usable_python(self) -> str:
        """Ours may lie in root's home, where the user can't reach it; then the system's does."""
        system = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
        for python in filter(None, (sys.executable, system)):
            # By way of env: setpriv's own execve still has the rights that the guarded command will lack.
            if self._world.run([*self.as_user(), "env", python, "-c", _OLD]).returncode == 0:
                return python
        raise SetupError(f"User {self._uid} can start no Python >=3.10.", "Install the package python3.")


def _install(home: Path) -> None:
    """Copy the package, and the little it imports, to where its user can read it."""
    ours = PACKAGE_ROOT / "dnsfw"
    theirs = home / "dnsfw"
    shutil.copytree(ours / "playground" / "package", theirs / "playground" / "package")
    for name in ("__init__.py", "playground/__init__.py", "playground/atlas.py"):
        shutil.copyfile(ours / name, theirs / name)
    (home / _SCRIPT).write_text("from dnsfw.playground.package.__main__ import main\n\nmain()\n", encoding="ascii")
