"""The fuzz target's promises on its corpus, damaged corpus, and hypothesis' bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.fuzz_packets import CORPUS, one

FILES = sorted(CORPUS.iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_corpus(file: Path) -> None:
    one(file.read_bytes())


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes(data: bytes) -> None:
    one(data)


@given(st.sampled_from([file.read_bytes() for file in FILES]), st.data())
@settings(max_examples=300)
def test_any_damage(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    one(bytes(damaged[: draw.draw(st.integers(0, len(data)))] or damaged))
