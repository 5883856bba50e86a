"""Who else than root could put another file in the place of one.

Law: looks, changes nothing. What can't be seen counts as replaceable.
"""

from __future__ import annotations

import pwd
import stat
from pathlib import Path


def replaceable(path: Path) -> str:
    """In words, who could change or replace that file: its own and all folders' owners and modes say so. "" if root
    alone can."""
    try:
        real = path.resolve(strict=True)
        for place in dict.fromkeys((*path.absolute().parents, *real.parents, real)):
            who = _who(place, is_file=place == real)
            if who:
                return f"{place} can be changed by {who}"
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
        return f"{path} can't be looked at ({error})"
    return ""


def roots_alone(path: Path) -> bool:
    """Can nobody but root change what this path leads to?"""
    return not replaceable(path)


def _who(place: Path, *, is_file: bool) -> str:
    found = place.lstat()
    if found.st_uid != 0:
        return _name(found.st_uid)
    # In a sticky folder (/tmp) nobody can move what is another's (chmod(2), S_ISVTX). A link's own mode says nothing.
    kept = stat.S_ISLNK(found.st_mode) or (found.st_mode & stat.S_ISVTX and not is_file)
    if found.st_mode & stat.S_IWOTH and not kept:
        return "everybody"
    if found.st_mode & stat.S_IWGRP and not kept:
        return f"group {found.st_gid}"
    return ""


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
