"""Errors and remarks as a person reads them: place, reason, the line, a caret, a hint.

Law: values in, text out. What came from a file can't steer a terminal: whatever is not printable is shown as `?`.
"""

from __future__ import annotations

from policy.errors import PolicyInvalid, PolicySyntaxError
from policy.lint import Remark

_BEFORE, _AFTER = 80, 40  # how much of a long line is shown around the caret


def show_invalid(invalid: PolicyInvalid) -> str:
    """All errors of a policy, one after another, and how many there were."""
    count = len(invalid.errors)
    return "\n".join([*map(show_error, invalid.errors), f"{count} error{'s' if count != 1 else ''}"])


def show_error(error: PolicySyntaxError) -> str:
    """One error in up to four lines."""
    place = f"{error.file}:{error.line}:{error.column}"
    return show(f"{place}: error: {error.reason}", error.text, error.column, error.hint)


def show_remark(remark: Remark) -> str:
    """One remark, in the same form."""
    source = remark.rule.source
    place = f"{source.file}:{source.line}:{source.column}"
    return show(f"{place}: warning: {remark.reason}", source.text, source.column, remark.hint)


def show(head: str, text: str, column: int, hint: str) -> str:
    """`head`, then the line `text` with a caret below its `column`, then the hint; what is "" is left out."""
    first = max(0, column - 1 - _BEFORE)
    before, after = text[first : column - 1], text[column - 1 : column - 1 + _AFTER]
    lines = [_printable(head)]
    if text:
        blank = "".join("\t" if char == "\t" else " " for char in before)
        lines += [f"    {_printable(before + after)}", f"    {blank}^"]
    return "\n".join(lines + ([f"    {_printable(hint)}"] if hint else []))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in text)
