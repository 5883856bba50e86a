"""Drives a fuzz target by coverage, with atheris (`make fuzz` installs it).

Law: knows no target.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory


def drive(one: Callable[[bytes], object], corpus: Path | None = None) -> None:
    """Fuzz for as long as libFuzzer's options on the command line say, from what is in `corpus`."""
    try:
        atheris = import_module("atheris")  # optional, and without types
    except ImportError:
        sys.exit("atheris isn't installed in this environment: call `make fuzz`")
    with TemporaryDirectory() as found:  # libFuzzer writes what it finds into the first folder
        folders = [found] if corpus is None else [found, str(corpus)]
        atheris.instrument_all()
        atheris.Setup([*sys.argv, *folders], one)
        atheris.Fuzz()
