"""The proxy's root among those that this host trusts, where `up` was told to put it there.

Law: one file of ours in the place that the distribution keeps for them, and the distribution's own program to take it
in. What is undone is told by that file's name alone, so that it can be undone after a SIGKILL, and twice.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dnsfw.errors import SetupError

_LINKS = Path("/etc/ssl/certs")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a distribution keeps an administrator's own roots, and what takes them in from there."""

    directory: Path
    update: Sequence[str]


_PLACES = (
    # Hooks are left out: Java's has dpkg work on packages. Java is told by its own variable.
    _Place(Path("/usr/local/share/ca-certificates"), ("update-ca-certificates", "--hooksdir", "/nonexistent")),
    _Place(Path("/etc/pki/ca-trust/source/anchors"), ("update-ca-trust",)),
)


def place(name: str) -> Path:
    """The file that the root of a run of this name belongs in. Raises SetupError."""
    for known in _PLACES:
        if known.directory.is_dir():
            return known.directory / f"dnsfw-{name}.crt"
    raise SetupError("This host has no place for an administrator's own roots.", "Leave --install-ca away.")


def install(anchor: Path, root: bytes) -> None:
    """Have the host trust `root` (PEM), and no other of that name. `anchor` is `place`'s. Raises SetupError."""
    _unlink(anchor)
    anchor.write_bytes(root)
    anchor.chmod(0o644)
    _update(anchor)


def remove(anchor: Path) -> None:
    """As it was. Not there is fine. Raises SetupError."""
    if anchor.exists():
        _unlink(anchor)
        _update(anchor)


def _unlink(anchor: Path) -> None:
    """The file, and the links to it: update-ca-certificates(8) leaves those of a file that is gone or changed."""
    link = _LINKS / f"{anchor.stem}.pem"
    for path in [path for path in _LINKS.glob("*.[0-9]") if path.is_symlink() and path.readlink() == Path(link.name)]:
        path.unlink()
    link.unlink(missing_ok=True)
    anchor.unlink(missing_ok=True)


def _update(anchor: Path) -> None:
    command = next(known.update for known in _PLACES if known.directory == anchor.parent)
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise SetupError(f"The program {command[0]} is missing.", "Install ca-certificates.") from None
    except subprocess.CalledProcessError as error:
        raise SetupError(f"{command[0]} failed: {error.stderr.strip()}") from error
