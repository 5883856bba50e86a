"""What a person sees: reports of guards on standard error, what a command was asked for on standard output.

Law: the one place that colours. click takes colour out where the stream is no terminal (and for NO_COLOR).
"""

from __future__ import annotations

import os
import re
import select
import sys
from contextlib import suppress
from pathlib import Path

import click

from dnsfw.errors import DnsfwError

_AT_ONCE = 1_000  # characters, which are at most 4,000 octets: less than PIPE_BUF with colours
_COLOURS = {"✗": "red", "!": "yellow", "to allow it:": "green"}
_MARKED = re.compile(r"^\S.*?:\d+:\d+: (error|warning|note): |^(allowed|denied)\b")
_SEVERITIES = {"error": "red", "warning": "yellow", "note": "cyan", "allowed": "green", "denied": "red"}


def show(text: str) -> None:
    """A report, line by line."""
    for line in text.splitlines():
        start = line.strip()
        colour = next((colour for mark, colour in _COLOURS.items() if start.startswith(mark)), None)
        _tell(line, colour)


def answer(text: str) -> None:
    """What a command was asked for, on standard output, line by line."""
    for line in text.splitlines():
        marked = _MARKED.search(line)
        click.secho(line, fg=_SEVERITIES[marked[1] or marked[2]] if marked else None)


def say(text: str) -> None:
    """One plain sentence of ours. Waits for no reader: who says it has a guard to look after."""
    _tell_now(f"dnsfw: {text}")


def complain(text: str) -> None:
    """One sentence of ours between a command's own output. Waits for no reader either."""
    _tell_now(f"dnsfw: {text}", "yellow")


def explain(error: DnsfwError) -> None:
    """An error: what is wrong, then what to do."""
    _tell(f"dnsfw: {error.problem}", "red")
    if error.remedy:
        _tell(f"  {error.remedy}")


def _tell_now(line: str, colour: str | None = None) -> None:
    """A pipe that nobody reads takes at least this much where it takes anything (pipe(7), PIPE_BUF)."""
    with suppress(OSError, ValueError):  # no such descriptor: for `_tell` to deal with
        if not select.select([], [sys.stderr.fileno()], [], 0)[1]:
            return
    _tell(line if len(line) <= _AT_ONCE else f"{line[:_AT_ONCE]}…", colour)


def _tell(line: str, colour: str | None = None) -> None:
    try:
        click.secho(line, err=True, fg=colour)
    except OSError:  # the terminal is closed, or the reader gone: our exit status still counts,
        with Path(os.devnull).open("w", encoding="ascii") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())  # and what is left over must not make it Python's own 120
