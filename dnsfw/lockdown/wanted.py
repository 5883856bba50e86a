"""Which measures are wanted, and what taking them back needs.

Law: values; what it takes to have them stands in `hold`, which few guards load.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Lockdown:
    """What is taken from users while a host is guarded: sudo(8) and the container engines' sockets from a user by name
    ("": nobody), user namespaces and ptrace(2) from all but root."""

    sudo: str = ""
    containers: str = ""
    user_namespaces: bool = False
    ptrace: bool = False


class Undo(msgspec.Struct, frozen=True):
    """`sudoers` is the file that another is mounted over; `lists` are files and the ACL that each had, as hexadecimal,
    null if none; `sysctls` map names to former values."""

    sudoers: str = ""
    lists: dict[str, str | None] = {}
    sysctls: dict[str, str] = {}
