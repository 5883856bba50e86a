"""Asking a program a question: what does it print, run as the calling user?

Law: bounded in time and in what is read, no terminal, no input, and never more privilege than the user has. Whatever
keeps a program from answering is one LookupError with a sentence for a person.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shutil import which
from typing import Any

from dnsfw.machine.privilege import User

_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program printed on standard output and on standard error, and its exit status."""

    output: str
    complaints: str
    status: int


@dataclass(frozen=True, slots=True)
class Asking:
    """Runs programs for `user`; `environ` is the caller's. All of them together must have answered at `until`, in
    seconds of the monotonic clock.

    Not in the current folder: a project's files would have a say there, and some tools run what those name.
    """

    user: User
    environ: Mapping[str, str]
    until: float

    def __call__(self, *argv: str, **variables: str) -> str:
        """What the program prints; `variables` are added to its environment. Raises LookupError."""
        answer = self.answer(argv, variables)
        if answer.status != 0:
            raise LookupError(
                f"`{' '.join(argv)}` failed: {_last_line(answer.complaints) or f'status {answer.status}'}"
            )
        return answer.output

    def answer(self, argv: Sequence[str], variables: Mapping[str, str]) -> Answer:
        """What the program says, even where it fails. Raises LookupError if it isn't there or takes too long."""
        environment = {**self.environ, **self.user.environment(), **variables}
        program = which(argv[0], path=environment.get("PATH", os.defpath))
        if program is None:
            raise LookupError(f"{argv[0]} isn't installed, or not in PATH")
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            try:
                process = subprocess.Popen(
                    [program, *argv[1:]],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=complaints,
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                    **self._identity(),
                )
            except OSError as error:
                raise LookupError(f"{program} can't be run: {error.strerror}") from error
            status = self._ended(process, argv[0])
            return Answer(_read(output), _read(complaints), status)

    def _ended(self, process: subprocess.Popen[bytes], name: str) -> int:
        """Its exit status; when time is up, it and all that it started in its session's group is killed."""
        try:
            return process.wait(max(0.0, self.until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise LookupError(f"{name} gave no answer in time") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _identity(self) -> dict[str, Any]:
        """Only root can, and must, become somebody else."""
        if os.geteuid() != 0:
            return {}
        return {"user": self.user.uid, "group": self.user.gid, "extra_groups": self.user.groups}


def _read(file: Any) -> str:
    file.seek(0)
    return bytes(file.read(_BYTES)).decode(errors="replace")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return "".join(char for char in lines[-1] if char.isprintable()) if lines else ""
