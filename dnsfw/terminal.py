"""What a person sees on standard error.

Law: the one place that colours. click takes colour out where standard error is no terminal (and for NO_COLOR).
"""

from __future__ import annotations

from contextlib import suppress

import click

from dnsfw.errors import DnsfwError

_COLOURS = {"✗": "red", "!": "yellow", "to allow it:": "green"}


def show(text: str) -> None:
    """A report, line by line."""
    for line in text.splitlines():
        start = line.strip()
        colour = next((colour for mark, colour in _COLOURS.items() if start.startswith(mark)), None)
        _tell(line, colour)


def say(text: str) -> None:
    """One plain sentence of ours."""
    _tell(f"dnsfw: {text}")


def complain(text: str) -> None:
    """One sentence of ours between a command's own output."""
    _tell(f"dnsfw: {text}", "yellow")


def explain(error: DnsfwError) -> None:
    """An error: what is wrong, then what to do."""
    _tell(f"dnsfw: {error.problem}", "red")
    if error.remedy:
        _tell(f"  {error.remedy}")


def _tell(line: str, colour: str | None = None) -> None:
    with suppress(OSError):  # the terminal is closed, or the reader gone: our exit status still counts
        click.secho(line, err=True, fg=colour)
