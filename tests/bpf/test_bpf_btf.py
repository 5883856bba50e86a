"""BTF: the offsets that a C compiler would give, and nothing but BpfError for bytes that are none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.btf import Btf
from bpf.errors import BpfError

NAMES = b"\0outer\0inner\0plain\0hidden\0flagged\0alias\0"


def name(text: str) -> int:
    return NAMES.index(b"\0" + text.encode() + b"\0") + 1 if text else 0


def structure(label: str, *members: tuple[str, int, int], kind: int = 4, flag: int = 0) -> bytes:
    head = struct.pack("=III", name(label), flag << 31 | kind << 24 | len(members), 0)
    return head + b"".join(struct.pack("=III", name(member), inner, bits) for member, inner, bits in members)


def btf(*types: bytes) -> bytes:
    body = b"".join(types)
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(NAMES)) + body + NAMES


INTEGER = struct.pack("=IIII", 0, 1 << 24, 8, 64)
ALIAS = struct.pack("=III", name("alias"), 8 << 24, 4)
# 1 int; 2 anonymous union {hidden at 0}; 3 typedef of 4; 4 inner {plain at 8, anonymous union at 16};
# 5 outer {inner (as alias) at 32, flagged (bit-field form) at 5}
SAMPLE = btf(
    INTEGER,
    structure("", ("hidden", 1, 0), kind=5),
    ALIAS,
    structure("inner", ("plain", 1, 64), ("", 2, 128)),
    structure("outer", ("inner", 3, 256), ("flagged", 1, 8 << 24 | 40), flag=1),
)


@pytest.mark.parametrize(
    ("path", "offset"),
    [
        (("inner", "plain"), 8),
        (("inner", "hidden"), 16),
        (("outer", "inner"), 32),
        (("outer", "inner", "plain"), 40),
        (("outer", "inner", "hidden"), 48),
        (("outer", "flagged"), 5),
    ],
    ids=str,
)
def test_offset(path: tuple[str, ...], offset: int) -> None:
    assert Btf(SAMPLE).offset(*path) == offset


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        (("missing",), "knows no missing"),
        (("alias",), "no structure alias"),
        (("outer", "plain"), "outer has no plain"),
        (("outer", "flagged", "plain"), "outer has no flagged.plain"),
    ],
    ids=str,
)
def test_what_is_not_there_is_named(path: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(BpfError, match=complaint):
        Btf(SAMPLE).offset(*path)


def test_structures_that_hold_themselves_end() -> None:
    loop = btf(structure("outer", ("", 1, 0)), struct.pack("=III", name("alias"), 8 << 24, 2))
    with pytest.raises(BpfError, match="outer has no plain"):
        Btf(loop).offset("outer", "plain")


@given(st.binary(max_size=200), st.integers(0, len(SAMPLE) - 1), st.integers(0, 255))
def test_garbage_raises_only_our_error(garbage: bytes, at: int, value: int) -> None:
    flipped = SAMPLE[:at] + bytes([value]) + SAMPLE[at + 1 :]
    for raw in (garbage, SAMPLE[:at], flipped, SAMPLE[:24] + garbage):
        try:
            Btf(raw).offset("outer", "inner", "hidden")
        except BpfError:
            continue


@pytest.mark.kernel
def test_this_kernel() -> None:
    path = Path("/sys/kernel/btf/vmlinux")
    if not path.exists():
        pytest.skip("this kernel has no BTF")
    kernel = Btf(path.read_bytes())
    assert kernel.offset("qstr", "name") == 8  # the hash and length before it have been 8 bytes since 2012
    assert kernel.offset("file", "f_path", "dentry") == kernel.offset("file", "f_path", "mnt") + 8
