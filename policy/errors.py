"""What is wrong with a policy's text.

Law: exceptions that carry places and words for a person; how they are shown is report.py's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(eq=False)
class PolicySyntaxError(Exception):
    """One mistake. `line` and `column` count from 1, in characters; `text` is the whole line; `hint` may be ""."""

    file: str
    line: int
    column: int
    text: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.reason}{hint}"


class PolicyInvalid(Exception):  # noqa: N818 - a state of the policy, told by its errors
    """A policy that can't be used: all its errors, in the order of the text."""

    def __init__(self, errors: Iterable[PolicySyntaxError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))
