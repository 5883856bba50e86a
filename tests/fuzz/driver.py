"""Drives a fuzz target by coverage, with atheris (`pip install atheris`; it is in no lock, for it is large and nothing
else needs it).

Law: knows no target.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory


def drive(one: Callable[[bytes], None], corpus: Path) -> None:
    """Fuzz for as long as libFuzzer's options on the command line say."""
    try:
        atheris = import_module("atheris")  # optional, and without types
    except ImportError:
        sys.exit("atheris isn't installed in this environment: pip install atheris")
    with TemporaryDirectory() as found:  # libFuzzer writes what it finds into the first folder
        atheris.instrument_all()
        atheris.Setup([*sys.argv, found, str(corpus)], one)
        atheris.Fuzz()
