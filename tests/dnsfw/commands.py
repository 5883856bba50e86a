"""Calling dnsfw's commands as the command line does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from dnsfw.cli import main


class Said(NamedTuple):
    """What a command ended with."""

    status: int
    out: str
    err: str


def dnsfw(*argv: str | Path, stdin: str | bytes = "", repository: str | None = None) -> Said:
    """`repository` is GITHUB_REPOSITORY, None for unset; standard output is no terminal."""
    result = CliRunner().invoke(main, list(map(str, argv)), input=stdin, env={"GITHUB_REPOSITORY": repository})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(result.exit_code, result.stdout, result.stderr)
