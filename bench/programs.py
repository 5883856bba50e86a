"""Programs of this folder's in C, for what Python would cost more than what is measured."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def compiled(name: str) -> Iterator[Path]:
    """The program of `name`.c, where everybody may run it."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        source, made = Path(__file__).with_name(f"{name}.c"), Path(folder) / name
        subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", str(made), str(source)], check=True)
        yield made
