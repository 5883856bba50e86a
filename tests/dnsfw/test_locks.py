"""requirements/*.lock hold what pyproject.toml asks for, pinned by hash, and say nothing of where it comes from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ASKED = {"run": PROJECT["project"]["dependencies"], **PROJECT["dependency-groups"]}


def _locked(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    return {canonicalize_name(package): version for package, version in pins}


@pytest.mark.parametrize("name", ASKED)
def test_a_lock_holds_what_pyproject_asks_for(name: str) -> None:
    locked = _locked(name)
    wanted = [Requirement(text) for text in ASKED[name]]
    assert [
        str(each) for each in wanted if not each.specifier.contains(locked.get(canonicalize_name(each.name), "0"))
    ] == []


def test_locks_agree_on_every_version() -> None:
    pins = [pin for name in ("build", "dev", "run") for pin in _locked(name).items()]
    assert len(dict(pins)) == len(set(pins))


@pytest.mark.parametrize("name", ASKED)
def test_a_lock_pins_every_package_by_hash_and_names_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=\S)", text)[1:]  # the first line is a comment
    assert [block for block in blocks if "==" not in block or "--hash=sha256:" not in block] == []
    assert "//" not in text
