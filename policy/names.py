"""Names and patterns over them.

Law: a name enters as text and leaves canonical (lower case, A-labels, no trailing dot; "" is the root) or raises
InvalidNameError. Comparison is by whole labels; no rule, no DNS message and no I/O is known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from encodings.idna import ToASCII

LABEL_OCTETS = 63  # RFC 1035 section 2.3.4
NAME_OCTETS = 253  # 255 on the wire (RFC 1035 section 2.3.4), less the first length octet and the root's

# Underscores name services (RFC 8552); a hyphen at a label's edge is no host name but is legal in the DNS.
_NAME = re.compile(rf"[a-z0-9_-]{{1,{LABEL_OCTETS}}}(?:\.[a-z0-9_-]{{1,{LABEL_OCTETS}}})*")

# IDNA 2003 (the standard library's) and 2008 read these differently: another name, another owner (UTS #46 section 7).
_DEVIATIONS = frozenset("ßẞς\u200c\u200d")


class InvalidNameError(ValueError):
    """Not a name that policy can speak of."""


def canonical(name: str) -> str:
    """The one spelling of an ASCII name, as it came off the wire or out of a header; "" and "." are the root.

    Raises InvalidNameError. Source: RFC 1035 section 2.3, RFC 4343 (case).
    """
    lowered = name.removesuffix(".").lower()
    if lowered and not (name.isascii() and _NAME.fullmatch(lowered) and len(lowered) <= NAME_OCTETS):
        raise InvalidNameError(_complaint(lowered))
    return lowered


def from_unicode(name: str) -> str:
    """As `canonical`, for text that a person wrote: labels beyond ASCII become A-labels (RFC 3490).

    Raises InvalidNameError too where the IDNA standards disagree about the label.
    """
    if name.isascii():
        return canonical(name)
    return canonical(".".join(_a_label(label) for label in name.split(".")))


def _a_label(label: str) -> str:
    if label.isascii():
        return label
    if not _DEVIATIONS.isdisjoint(label):
        raise InvalidNameError(f"IDNA versions disagree about {label!r}; write its xn-- form")
    try:
        return ToASCII(label).decode("ascii")
    except UnicodeError as error:
        raise InvalidNameError(f"{label!r} has no IDNA form: {error}") from error


def _complaint(name: str) -> str:
    labels = name.split(".")
    if "" in labels:
        return "a label is empty"
    if any(len(label) > LABEL_OCTETS for label in labels):
        return f"a label is longer than {LABEL_OCTETS} octets"
    if len(name) > NAME_OCTETS:
        return f"the name is longer than {NAME_OCTETS} octets"
    return "a label has a character other than a letter, a digit, '-' or '_'"


def suffixes(name: str) -> list[str]:
    """The names above `name`, nearest first: `b.c` and `c` for `a.b.c`."""
    found, dot = [], name.find(".")
    while dot >= 0:
        found.append(name[dot + 1 :])
        dot = name.find(".", dot + 1)
    return found


def glob(text: str) -> re.Pattern[str]:
    """`text`, in which each `*` is any run of characters, as a regular expression.

    Atomic groups settle each piece at its first place, as in fnmatch: no backtracking, whatever an attacker sends.
    """
    head, *pieces = text.split("*")
    source = re.escape(head)
    if pieces:
        *middle, tail = pieces
        source += "".join(f"(?>.*?{re.escape(piece)})" for piece in middle if piece) + ".*" + re.escape(tail)
    return re.compile(source, re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A set of names: `base`, or what stands below it.

    `label` is a glob for the one label before `base` ("" for none); `deep` asks for one or more labels before that.
    So `github.com` is base alone, `*.x` is deep, `derp*.x` has a label and `*.derp*.x` has both.
    """

    base: str
    label: str = ""
    deep: bool = False
    _label: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_label", glob(self.label) if self.label else None)

    def matches(self, name: str) -> bool:
        """Does this canonical name belong to the set?"""
        if name == self.base:
            return not (self.deep or self.label)
        if not name.endswith(f".{self.base}"):
            return False
        above = name[: -len(self.base) - 1]
        if self._label is None:
            return self.deep
        rest, _, first = above.rpartition(".")
        return bool(rest) == self.deep and self._label.fullmatch(first) is not None

    def __str__(self) -> str:
        return ".".join(part for part in ("*" if self.deep else "", self.label, self.base) if part)


def pattern(text: str) -> Pattern:
    """The pattern that a policy's host text stands for; its shape is the grammar's business.

    Raises InvalidNameError for lengths and characters, and for a wildcard that no name could fit.
    """
    deep = text.startswith("*.")
    rest = text.removeprefix("*.")
    label, base = rest.split(".", 1) if "*" in rest.split(".", 1)[0] else ("", rest)
    base = from_unicode(base)
    label = label.lower()
    if not label.isascii():
        raise InvalidNameError(f"a pattern works on A-labels, not on {label!r}")
    if len(label) > LABEL_OCTETS or ((label or deep) and len(base) + len(label) > NAME_OCTETS - 2):
        raise InvalidNameError("the wildcard leaves no room for a name")
    return Pattern(base, label, deep)
