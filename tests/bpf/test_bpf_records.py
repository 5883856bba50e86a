"""Record layouts and what is read from them: pure."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf import records
from policy.values import Flow, Proto, address


@pytest.mark.parametrize(
    ("flow", "any_source", "key"),
    [
        (
            Flow(Proto.TCP, address("10.0.0.1"), 4660, address("192.0.2.1"), 443),
            False,
            "00000000000000000000ffff0a000001 00000000000000000000ffffc0000201 1234 01bb 06 000000",
        ),
        (
            Flow(Proto.UDP, address("fd00::1"), 1, address("2001:db8::1"), 53),
            False,
            "fd000000000000000000000000000001 20010db8000000000000000000000001 0001 0035 11 000000",
        ),
        (
            Flow(Proto.UDP, address("10.0.0.1"), 1, address("192.0.2.1"), 53),
            True,
            "00000000000000000000000000000000 00000000000000000000ffffc0000201 0001 0035 11 000000",
        ),
    ],
    ids=["v4", "v6", "any source"],
)
def test_flow_key_is_in_network_order_and_ipv4_is_mapped(flow: Flow, any_source: bool, key: str) -> None:
    assert records.flow_key(flow, any_source=any_source) == bytes.fromhex(key)


def test_layouts_have_the_sizes_of_owner_h() -> None:
    assert [layout.size for layout in records.LAYOUTS] == [40, 24, 64, 112, 1864, 32784]


def test_assertions_name_every_field() -> None:
    text = records.PROCESS_KEY.assertions()
    assert "sizeof(struct process_key) == 24" in text
    assert "__builtin_offsetof(struct process_key, exec_id) == 8" in text
    assert "__builtin_offsetof(struct process_key, tgid) == 16" in text


@pytest.mark.parametrize(
    ("flags", "exe", "argv", "expected"),
    [
        (5, b"git\0bin\0usr\0", b"git\0push\0", ("/usr/bin/git", ("git", "push"), True)),
        (7, b"x\0tmp\0", b"x\0", ("/tmp/x (deleted)", ("x",), True)),
        (5, b"", b"", ("/", (), True)),
        (4, b"git\0bin\0", b"git\0", ("", ("git",), False)),
        (1, b"git\0", b"git\0", ("/git", (), False)),
        (13, b"git\0", b"git\0pu", ("/git", ("git", "pu"), False)),
        (5, b"git\0", b"\0\0x\0", ("/git", ("", "", "x"), True)),
        (5, b"\xff\0", b"\xff\\xff\0", ("/\\xff", ("\\xff\\xff",), True)),
    ],
    ids=["plain", "deleted", "empty", "no path", "no arguments", "cut", "empty arguments", "not UTF-8"],
)
def test_a_program_as_read(flags: int, exe: bytes, argv: bytes, expected: tuple[str, tuple[str, ...], bool]) -> None:
    raw = records.PROGRAM.format.pack(flags, len(exe), len(argv), 0, 1, 0, bytes(24), b"x", exe, argv)
    program = records.read_program(raw)
    assert (program.exe, program.argv, program.complete) == expected


@given(st.binary(min_size=records.PROGRAM.size, max_size=records.PROGRAM.size))
def test_any_program_record_becomes_text_that_json_carries(raw: bytes) -> None:
    program = records.read_program(raw)
    json.dumps([program.exe, program.argv, program.comm]).encode()
    assert "\0" not in program.comm
    assert program.exe == "" or program.exe.startswith("/")


@given(st.binary(min_size=records.OWNER.size, max_size=records.OWNER.size))
def test_any_owner_record_is_read(raw: bytes) -> None:
    use = records.read_use(raw)
    assert raw.startswith(use.process)


KEY = records.flow_key(Flow(Proto.TCP, address("10.0.0.1"), 4660, address("192.0.2.1"), 443))


def connection(key: bytes, owner: bytes) -> bytes:
    flow_words = [int.from_bytes(key[at : at + 8], sys.byteorder) for at in range(0, len(key), 8)]
    owner_words = [int.from_bytes(owner[at : at + 8], sys.byteorder) for at in range(0, len(owner), 8)]
    return key + owner + records.COUNT.pack(records.digest(0, (*flow_words, *owner_words)))


@given(st.binary(min_size=64, max_size=64), st.integers(0, 111), st.integers(1, 255))
def test_a_connection_s_record_that_is_not_whole_is_nobody_s(owner: bytes, at: int, other: int) -> None:
    """As two processors leave it that write at once, or one while we read."""
    raw = connection(KEY, owner)
    assert records.connection_owner(raw, KEY) == owner
    torn = bytearray(raw)
    torn[at] ^= other
    assert records.connection_owner(bytes(torn), KEY) is None


def test_an_empty_place_is_nobody_s() -> None:
    assert records.connection_owner(bytes(records.CONNECTION.size), KEY) is None


@given(st.binary(max_size=100))
def test_any_record_of_surroundings_is_read(start: bytes) -> None:
    raw = b"\0" + start.ljust(records.SURROUNDINGS.size - 1, b"x")
    assert records.read_surroundings(raw) is None
    raw = b"\1" + raw[1:]
    given = records.read_surroundings(raw)
    assert given is None or raw[0] & 1


@pytest.mark.parametrize(
    ("flags", "expected"), [(1, (("sh", "-e"), ("A=1", "B="))), (0, None)], ids=["whole", "not whole"]
)
def test_surroundings_as_read(flags: int, expected: tuple[tuple[str, ...], tuple[str, ...]] | None) -> None:
    raw = records.SURROUNDINGS.format.pack(flags, 6, 7, b"sh\0-e\0A=1\0B=\0and more")
    assert records.read_surroundings(raw) == expected


@given(st.lists(st.binary(max_size=9).filter(lambda part: b"\0" not in part), min_size=1, max_size=5))
def test_arguments_survive(parts: list[bytes]) -> None:
    block = b"".join(part + b"\0" for part in parts)
    assert records.arguments(block) == tuple(part.decode(errors="backslashreplace") for part in parts)
