"""What the values are made of that are made for every question.

Law: one base and nothing else; the only file here that knows msgspec.
"""

from __future__ import annotations

from typing import Any, Self

from msgspec import Struct
from msgspec.structs import replace


class Value(Struct, frozen=True, gc=False):
    """A frozen, slotted record. One is made in a tenth of the time that a frozen dataclass takes, and the collector
    never looks at it: what it holds are values too, and none of them leads back."""

    def but(self, **changes: Any) -> Self:
        """The same, but for these fields."""
        return replace(self, **changes)
