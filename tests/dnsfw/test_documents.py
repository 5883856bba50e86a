"""What the documents point to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
MODULE = re.compile(r"`((?:policy|resolver|firewall|bpf|dnsfw|proxy|bench|scripts)/[\w./-]+\.\w+)`")


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_test_that_a_promise_leans_on_is_there(document: Path) -> None:
    missing = [
        f"{file}::{function}"
        for file, function in TEST.findall(document.read_text(encoding="utf-8"))
        if not (ROOT / file).is_file() or f"def {function or ''}" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_file_that_is_named_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = [(document.parent / link) for link in LINK.findall(text)] + [ROOT / file for file in MODULE.findall(text)]
    assert not [str(path) for path in named if not path.exists()]
