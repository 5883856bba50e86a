"""A fuzz target for the policy language: any bytes are rules, or a list of errors with places.

`python tests/fuzz/fuzz_policy.py [-max_total_time=60]` drives it by coverage (tests/fuzz/driver.py); pytest feeds
it the corpus and hypothesis' bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dnsfw.policies.format import formatted
from policy import Policy, PolicyInvalid, render
from policy.lint import lint
from policy.parse import ERROR_LIMIT, parse
from policy.report import show_invalid
from tests.fuzz.driver import drive

CORPUS = Path(__file__).parent / "policy"


def load(verb: str, name: str) -> tuple[str, str]:
    """A little world of files: one that is fine, one that takes in itself, and no other."""
    files = {"a": "a.example\n[:22]", "b": "@include b"}
    return f"@{verb} {name}", files[name]


def one(data: bytes) -> None:
    """Whatever breaks a promise raises."""
    placeholders = {"owner": "o", "repo": "r-1"}
    try:
        policy = parse(data, "fuzz", uid_of={"root": 0}.__getitem__, load=load, placeholders=placeholders)
    except PolicyInvalid as invalid:
        _errors(data, invalid)
    else:
        _rules(data, policy)


def _errors(data: bytes, invalid: PolicyInvalid) -> None:
    lines = data.decode(errors="replace").removeprefix("\ufeff").split("\n")
    assert 0 < len(invalid.errors) <= ERROR_LIMIT + 1
    for error in invalid.errors:
        assert error.reason
        assert error.line >= 1
        if error.file == "fuzz" and error.text:
            assert lines[error.line - 1].removesuffix("\r").startswith(error.text)
            assert 1 <= error.column <= len(error.text) + 1
    assert all(char.isprintable() or char in "\n\t" for char in show_invalid(invalid))


def _rules(data: bytes, policy: Policy) -> None:
    again = parse("\n".join(map(render, policy.rules)), "again")
    assert again == policy
    lint(policy)
    made = formatted(data, "fuzz")
    assert formatted(made.encode(), "fuzz") == made


if __name__ == "__main__":
    drive(one, CORPUS)
