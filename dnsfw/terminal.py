"""What a person sees on standard error.

Law: the one place that colours. click takes colour out where standard error is no terminal (and for NO_COLOR).
"""

from __future__ import annotations

import click

from dnsfw.errors import DnsfwError

_COLOURS = {"✗": "red", "!": "yellow", "to allow it:": "green"}


def show(text: str) -> None:
    """A report, line by line."""
    for line in text.splitlines():
        start = line.strip()
        colour = next((colour for mark, colour in _COLOURS.items() if start.startswith(mark)), None)
        click.secho(line, err=True, fg=colour)


def say(text: str) -> None:
    """One plain sentence of ours."""
    click.echo(f"dnsfw: {text}", err=True)


def complain(text: str) -> None:
    """One sentence of ours between a command's own output."""
    click.secho(f"dnsfw: {text}", err=True, fg="yellow")


def explain(error: DnsfwError) -> None:
    """An error: what is wrong, then what to do."""
    click.secho(f"dnsfw: {error.problem}", err=True, fg="red")
    if error.remedy:
        click.echo(f"  {error.remedy}", err=True)
