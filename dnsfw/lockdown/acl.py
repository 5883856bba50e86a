"""Taking a file from one user, by an entry of an access control list.

Law: pure octets: the extended attribute that the kernel keeps a POSIX ACL in, and nothing else of ACLs.
Source: <linux/posix_acl_xattr.h>, <linux/posix_acl.h>; acl(5).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

ATTRIBUTE: Final = "system.posix_acl_access"
_VERSION: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")  # tag, permissions, id
_NOBODY_IN_PARTICULAR: Final = 0xFFFFFFFF


class Tag(IntEnum):
    """Whom an entry is for; entries are kept in this order."""

    USER_OBJ = 0x01
    USER = 0x02
    GROUP_OBJ = 0x04
    GROUP = 0x08
    MASK = 0x10
    OTHER = 0x20


class Entry(NamedTuple):
    """`permissions` are 4 read, 2 write, 1 execute."""

    tag: int
    permissions: int
    id: int = _NOBODY_IN_PARTICULAR


def without(attribute: bytes | None, mode: int, uid: int) -> bytes:
    """The attribute that gives this user nothing and leaves everybody else what they have. `attribute` None: the file
    has only its `mode`. Raises ValueError for octets that are no list of version 2.

    A named user's entry wins over those of the user's groups (acl(5), "access check algorithm").
    """
    entries = _of_mode(mode) if attribute is None else _read(attribute)
    kept = [entry for entry in entries if (entry.tag, entry.id) != (Tag.USER, uid)]
    if all(entry.tag != Tag.MASK for entry in kept):  # named entries need one; it gives what the group has
        group = next((entry.permissions for entry in kept if entry.tag == Tag.GROUP_OBJ), 0)
        kept.append(Entry(Tag.MASK, group))
    kept.append(Entry(Tag.USER, 0, uid))
    return _VERSION.pack(2) + b"".join(_ENTRY.pack(*entry) for entry in sorted(kept, key=lambda e: (e.tag, e.id)))


def _of_mode(mode: int) -> list[Entry]:
    tags = (Tag.USER_OBJ, Tag.GROUP_OBJ, Tag.OTHER)
    return [Entry(tag, mode >> shift & 7) for tag, shift in zip(tags, (6, 3, 0), strict=True)]


def _read(attribute: bytes) -> list[Entry]:
    version, entries = attribute[: _VERSION.size], attribute[_VERSION.size :]
    if version != _VERSION.pack(2) or len(entries) % _ENTRY.size:
        raise ValueError("not an access control list of version 2")
    return [Entry(*found) for found in _ENTRY.iter_unpack(entries)]
