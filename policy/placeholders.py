"""`{owner}` and `{repo}`: values from outside, put into a policy's lines.

Law: a value is a plain word, so that it can't say anything in the policy's language; any other leaves its placeholder
standing, and a placeholder left standing anywhere but in a comment is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

PLACEHOLDER = re.compile(r"\{(owner|repo)\}")
# What GitHub lets owners and repositories be called: nothing that means something in a policy is among it.
_PLAIN = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}")


class Placeholders:
    """The values for one policy, by name."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {f"{{{name}}}": value for name, value in values.items() if _PLAIN.fullmatch(value)}

    def fill(self, line: str) -> str:
        """The line with every known placeholder replaced."""
        return PLACEHOLDER.sub(lambda found: self._value(found[0]), line) if "{" in line else line

    def origin(self, line: str, offset: int) -> int:
        """Where in `line` stands what `offset` of the filled line points at."""
        shift = 0
        for found in PLACEHOLDER.finditer(line):
            value = self._value(found[0])
            if offset < found.start() + shift + len(value):
                return min(offset - shift, found.start())
            shift += len(value) - len(found[0])
        return offset - shift

    def _value(self, placeholder: str) -> str:
        return self._values.get(placeholder, placeholder)
