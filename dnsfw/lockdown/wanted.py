"""Which measures are wanted.

Law: a value; what it takes to have them stands in `hold`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lockdown:
    """What is taken from users while a host is guarded: sudo(8) and the container engines' sockets from a user by name
    ("": nobody), user namespaces and ptrace(2) from all but root."""

    sudo: str = ""
    containers: str = ""
    user_namespaces: bool = False
    ptrace: bool = False
