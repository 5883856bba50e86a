"""Where the figures are measured: the playground's laptop, with and without the guard.

Law: starts commands in both worlds and returns what they said. Knows no figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground, Setting

_CLIENT = Path(__file__).with_name("client.py")
_PATIENCE = 60.0  # seconds for any one command

POLICY = f"""# the benchmarks' policy
{atlas.ALLOWED_NAME}
{atlas.ALLOWED_NAME}:{atlas.ECHO_PORT}|{atlas.DISCARD_PORT}|{atlas.DAYTIME_PORT}|{atlas.CHARGEN_PORT}
*.{atlas.WILDCARD_ZONE}
{atlas.ALLOWED.v4}:1
{atlas.ALLOWED.v4}:1/udp
"""


class BenchError(Exception):
    """A command of a benchmark failed; what it said is in the text."""


class Bed:
    """`with Bed() as bed: bed.client("connects", …, guarded=True)`. Needs root."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.world = self._stack.enter_context(Playground(Setting(tap=False)))  # the tap would be measured too
        self.policy = self.world.directory / "bench.policy"
        self.policy.write_text(POLICY, encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def command(self, argv: Sequence[str], *, guarded: bool, options: Sequence[str] = ()) -> list[str]:
        """`argv` itself, or the same under `dnsfw run` with these options more."""
        if not guarded:
            return list(argv)
        usual = ["--quiet", "--policy", str(self.policy), "--upstream", atlas.UPSTREAM.v4]
        return [*self.world.dnsfw("run", *usual, *options, "--"), *argv]

    def run(self, argv: Sequence[str], *, guarded: bool, options: Sequence[str] = ()) -> str:
        """What `argv` printed. Raises BenchError if it failed."""
        try:
            done = self.world.run(self.command(argv, guarded=guarded, options=options), timeout=_PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{argv[0]} took longer than {_PATIENCE:.0f} s") from error
        if done.returncode != 0:
            raise BenchError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def client(self, work: str, port: int, amount: int, *, guarded: bool) -> dict[str, float]:
        """One of client.py's works, against the allowed name."""
        argv = [sys.executable, "-I", str(_CLIENT), work, atlas.ALLOWED_NAME, str(port), str(amount)]
        said: dict[str, float] = json.loads(self.run(argv, guarded=guarded))
        return said

    def popen(self, argv: Sequence[str], *, guarded: bool) -> subprocess.Popen[Any]:
        """`argv` in the background, its stdin and stdout pipes of text."""
        command = self.command(argv, guarded=guarded)
        return self.world.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
