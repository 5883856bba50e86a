"""The line between the playground and its processes: one JSON object a line, over the child's stdin and stdout.

Law: both ends of that line, and nothing of what is said on it. A child ends when its stdin does, so none outlives
the playground, whatever ended that.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dnsfw.errors import SetupError

type Message = dict[str, Any]

# Where `python -m dnsfw.playground.…` finds this package: the repository, or site-packages.
PACKAGE_ROOT = Path(__file__).parents[2]


class PlaygroundError(SetupError):
    """The playground itself failed; what its process said is in the text."""


class Child:
    """`python -m module arguments…`, which has said that it is ready. Raises PlaygroundError if it does not."""

    def __init__(self, module: str, arguments: Sequence[str], *, keep: Sequence[int]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed at exit, with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=keep,
            cwd=PACKAGE_ROOT,
            start_new_session=True,  # Ctrl-C on the terminal is for the playground's user to act on
        )
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Message, *, within: float) -> Message:
        """Send `request` and return the reply, at most `within` seconds later. Raises PlaygroundError."""
        if self._process.stdin is None:  # never: it was asked for
            raise PlaygroundError("the playground's process has no stdin")
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise PlaygroundError(f"a process of the playground is gone: {self._last_words()}") from error
        return self.hear(within=within)

    def hear(self, *, within: float) -> Message:
        """The next message. Raises PlaygroundError when the child ended or stayed silent."""
        deadline = time.monotonic() + within
        while b"\n" not in self._unread:
            self._unread += self._read(deadline - time.monotonic())
        line, _, self._unread = self._unread.partition(b"\n")
        message: Message = json.loads(line)
        return message

    def _read(self, seconds: float) -> bytes:
        if self._process.stdout is None:  # never: it was asked for
            raise PlaygroundError("the playground's process has no stdout")
        readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, seconds))
        if not readable:
            raise PlaygroundError(f"a process of the playground does not answer: {self._last_words()}")
        data = os.read(self._process.stdout.fileno(), 1 << 20)
        if not data:
            raise PlaygroundError(f"a process of the playground ended: {self._last_words()}")
        return data

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip() or "(it said nothing)"


async def answer_questions(answer: Callable[[Message], Awaitable[Message]]) -> None:
    """The child's end: say that we are ready, then answer each line in turn until stdin ends."""
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    _say({"ready": True})
    while line := await reader.readline():
        _say(await answer(json.loads(line)))


def _say(message: Message) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
