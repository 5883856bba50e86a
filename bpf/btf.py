"""Where the running kernel keeps the fields of its structures, from its own type information (BTF).

Law: pure. Bytes in, offsets out; the format is Documentation/bpf/btf.rst of the kernel. BTF lets one program text
read a few fields of task_struct and its neighbours on any kernel, with no kernel headers installed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from bpf.errors import BpfError

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
_TYPE = struct.Struct("=III")  # name_off, info, size or type
_MEMBER = struct.Struct("=III")  # name_off, type, offset
_ENUMERATOR = struct.Struct("=Ii")  # name_off, value
_STRUCT, _UNION, _ENUM = 4, 5, 6
_ALIASES = frozenset((8, 9, 10, 11, 18))  # typedef, volatile, const, restrict, type_tag
# What follows a type's common part: so many bytes, and so many more for each of its vlen entries.
_PLAIN = dict.fromkeys((2, 7, 8, 9, 10, 11, 12, 16, 18), (0, 0))
_LISTS = dict.fromkeys((4, 5, 15, 19), (0, 12)) | dict.fromkeys((6, 13), (0, 8))
_TAIL = _PLAIN | _LISTS | {1: (4, 0), 3: (12, 0), 14: (4, 0), 17: (4, 0)}


class Btf:
    """A kernel's type information. Raises BpfError for bytes that are none, and for a structure or member that
    it does not have."""

    def __init__(self, raw: bytes) -> None:
        try:
            magic, _, _, header, types, types_size, names, names_size = _HEADER.unpack_from(raw)
        except struct.error as error:
            raise BpfError("the kernel's BTF is cut short") from error
        if magic != _MAGIC or len(raw) < header + max(types + types_size, names + names_size):
            raise BpfError("the kernel's BTF is not in a form that we know")
        self._types = raw[header + types : header + types + types_size]
        self._names = raw[header + names : header + names + names_size]
        self._named: dict[tuple[int, int], int] = {}  # structures and enumerations by kind and name
        self._at = [0, *self._walk()]  # type 0 is void and not in the table

    def offset(self, structure: str, *members: str) -> int:
        """The offset in bytes of a member, of that member's own member, and so on down."""
        offset, type_id = 0, self._find(structure, _STRUCT)
        for member in members:
            step = self._member(type_id, self._name(member))
            if step is None:
                raise BpfError(f"this kernel's {structure} has no {'.'.join(members)}")
            offset, type_id = offset + step[0], step[1]
        return offset

    def enumerator(self, enumeration: str, name: str) -> int:
        """The value of one of an enumeration's names."""
        at = self._at[self._find(enumeration, _ENUM)]
        _, facts, _ = _TYPE.unpack_from(self._types, at)
        wanted, first = self._name(name), at + _TYPE.size
        for entry in range(first, first + (facts & 0xFFFF) * _ENUMERATOR.size, _ENUMERATOR.size):
            found, value = _ENUMERATOR.unpack_from(self._types, entry)
            if found == wanted:
                return int(value)
        raise BpfError(f"this kernel's {enumeration} has no {name}")

    def _walk(self) -> Iterator[int]:
        at, end, types, type_id = 0, len(self._types), self._types, 0
        unpack = struct.Struct("=II").unpack_from
        while at < end:
            yield at
            try:
                name, facts = unpack(types, at)
                kind = facts >> 24 & 0x1F
                fixed, each = _TAIL[kind]
            except (struct.error, KeyError) as error:
                raise BpfError("the kernel's BTF has a type that we don't know") from error
            type_id += 1
            if kind in (_STRUCT, _ENUM):
                self._named.setdefault((kind, name), type_id)
            at += _TYPE.size + fixed + each * (facts & 0xFFFF)
        if at != end:
            raise BpfError("the kernel's BTF is cut short")

    def _find(self, name: str, kind: int) -> int:
        found = self._named.get((kind, self._name(name)))
        if found is None:
            raise BpfError(f"this kernel's BTF has no {'structure' if kind == _STRUCT else 'enumeration'} {name}")
        return found

    def _member(self, type_id: int, name: int, depth: int = 8) -> tuple[int, int] | None:
        """The offset and type of a member, looked for in anonymous members too, `depth` of them deep."""
        at, vlen, flag = self._structure(type_id)
        for entry in range(at, at + vlen * _MEMBER.size, _MEMBER.size):
            found, inner, bits = _MEMBER.unpack_from(self._types, entry)
            offset = (bits & 0xFFFFFF if flag else bits) // 8  # with the flag, the upper byte is a bit-field's size
            if found == name:
                return offset, inner
            if found == 0 and depth and (deeper := self._member(inner, name, depth - 1)) is not None:
                return offset + deeper[0], deeper[1]
        return None

    def _structure(self, type_id: int) -> tuple[int, int, bool]:
        """Where a structure's members begin, how many they are, and its kind_flag; none if it is no structure."""
        for _ in range(16):  # aliases of aliases; more of them is a loop
            if not 0 < type_id < len(self._at):
                break
            at = self._at[type_id]
            _, facts, inner = _TYPE.unpack_from(self._types, at)
            kind = facts >> 24 & 0x1F
            if kind in (_STRUCT, _UNION):
                return at + _TYPE.size, facts & 0xFFFF, bool(facts >> 31)
            if kind not in _ALIASES:
                break
            type_id = inner
        return 0, 0, False

    def _name(self, name: str) -> int:
        at = self._names.find(b"\0" + name.encode() + b"\0")
        if at < 0:
            raise BpfError(f"this kernel's BTF knows no {name}")
        return at + 1
