"""The fuzz target's promises on its corpus and on hypothesis' bytes; and that time grows with length, no faster."""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy import PolicyInvalid
from policy.parse import LINE_LIMIT, TEXT_LIMIT, parse
from tests.fuzz.fuzz_policy import CORPUS, one

FILES = sorted(CORPUS.iterdir())
PIECES = sorted(
    {piece for file in FILES for line in file.read_bytes().split(b"\n") for piece in (line, line[: len(line) // 2])}
)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_corpus(file: Path) -> None:
    one(file.read_bytes())


@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=8).map(b"\n".join)))
@settings(max_examples=300)
def test_any_bytes_are_rules_or_errors(data: bytes) -> None:
    one(data)


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)), max_size=6).map(b"".join))
@settings(max_examples=300)
def test_any_pieces_on_one_line(data: bytes) -> None:
    one(data)


def seconds(text: str) -> float:
    """CPU time to read the text, the least of three; without the collector's, which goes through all that other tests
    have left in memory."""
    took = []
    gc.disable()
    try:
        for _ in range(3):
            start = time.process_time()
            with suppress(PolicyInvalid):
                parse(text, "p")
            took.append(time.process_time() - start)
    finally:
        gc.enable()
    return min(took)


LINES = {
    "rules": "a.b.c.example:80|443 exe=/usr/bin/git",
    "mistakes": "a..b",
    "slashes": "a/" * (LINE_LIMIT // 2),
    "open quote": 'a.example exe="' + "a" * 4000,
    "words": "a.example " + "exe=`a` " * 500 + "?",
    "stars": "https://a.example/" + "a*" * 2000,
    "labels": "a." * 2000,
    "brackets": "[" * LINE_LIMIT,
    "placeholders": "{owner}" * 580,
    "colons": ":" * LINE_LIMIT,
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_time_is_linear_in_the_number_of_lines(line: str) -> None:
    """Sixteen times the lines, at most 32 times the time: a square would be 256."""
    few = max(2, 4_000 // len(line))
    assert seconds("\n".join([line] * few * 16)) < 32 * seconds("\n".join([line] * few)) + 0.01


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_time_is_linear_in_the_length_of_a_line(line: str) -> None:
    """Eight times the length, at most 24 times the time: a square would be 64."""
    assert seconds(line[:LINE_LIMIT]) < 24 * seconds(line[: LINE_LIMIT // 8]) + 0.002


def test_ten_megabytes_are_refused_at_once() -> None:
    text = "a.example\n" * 1_000_000
    assert len(text) > TEXT_LIMIT
    assert seconds(text) < 0.1
