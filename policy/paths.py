"""URL paths: one spelling, and patterns over it.

Law: a path that two servers could read differently has no canonical form; it raises AmbiguousPathError and nobody
guesses. Case counts, the query doesn't belong here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from policy.names import glob

_ALLOWED = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")  # RFC 3986 section 3.3: pchar and "/"
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986 section 2.3
_TROUBLE = frozenset("/\\%?#") | {chr(code) for code in (*range(0x20), 0x7F)}
_PARAMETERS = re.compile(";|%3B")
_FOLDED = _TROUBLE | {".", ";"}


class AmbiguousPathError(ValueError):
    """A path that a server might read otherwise than we do."""


def canonical(raw: str) -> str:
    """The one spelling of an absolute path without its query.

    Unreserved octets are decoded and other escapes get upper case (RFC 3986 section 6.2.2).
    Raises AmbiguousPathError for what servers undo differently: dot segments (`..;` too), empty segments, backslashes,
    control characters, an escaped slash, backslash, percent, question or hash sign, escaped octets that are not UTF-8
    (an overlong slash, say), and characters that some fold into those (a fullwidth slash).
    """
    if not _ALLOWED.fullmatch(raw):
        raise AmbiguousPathError("a path starts with / and has only the characters of RFC 3986 section 3.3")
    path = _ESCAPE.sub(_escape, raw) if "%" in raw else raw
    if "//" in path:
        raise AmbiguousPathError("an empty segment: some servers drop it")
    if "/." in path and any(_stem(segment) in {".", ".."} for segment in path.split("/")):
        raise AmbiguousPathError("a dot segment: some servers resolve it")
    if "%" in path:
        _readable(path)
    return path


def _readable(path: str) -> None:
    """What is escaped must be text that stays what it is (RFC 3629 section 10, Unicode Standard Annex #15)."""
    try:
        text = unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise AmbiguousPathError(
            "escaped octets that are not UTF-8: some servers make a slash or a dot of them"
        ) from None
    for char in text:
        if not char.isascii() and not _FOLDED.isdisjoint(unicodedata.normalize("NFKC", char)):
            raise AmbiguousPathError(f"{unicodedata.name(char, 'a character')}: some servers make another of it")


def _escape(found: re.Match[str]) -> str:
    if found[1] is None:
        raise AmbiguousPathError("% without two hexadecimal digits")
    char = chr(int(found[1], 16))
    if char in _TROUBLE:
        raise AmbiguousPathError(f"{found[0]}: some servers decode it before they look at the path")
    return char if char in _UNRESERVED else found[0].upper()


def _stem(segment: str) -> str:
    """A segment without its parameters (RFC 3986 section 3.3), which some servers strip before anything else."""
    return _PARAMETERS.split(segment, maxsplit=1)[0]


def readings(path: str) -> tuple[str, ...]:
    """What servers make of a canonical path: itself, and what is left without parameters where it has any.

    Raises AmbiguousPathError where nothing is left of a segment.
    """
    if not _PARAMETERS.search(path):
        return (path,)
    return path, canonical("/".join(map(_stem, path.split("/"))))


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A set of canonical paths, written with `*`: a whole middle segment is one segment, a whole last one any rest,
    within a segment any part of it."""

    text: str
    _segments: tuple[str | re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_segments", tuple(map(_segment, self.text.split("/"))))

    @property
    def has_parameters(self) -> bool:
        """Does its author speak of parameters?"""
        return _PARAMETERS.search(self.text) is not None

    @property
    def stem(self) -> str:
        """The literal segments that every path in the set begins with, without a slash at the end."""
        return self.text.partition("*")[0].rpartition("/")[0] if "*" in self.text else self.text.rstrip("/")

    def matches(self, path: str) -> bool:
        """Is this canonical path in the set?"""
        segments = path.split("/")
        wanted = self._segments
        if wanted[-1] == "*" and len(segments) >= len(wanted):
            wanted = wanted[:-1]
        elif len(segments) != len(wanted):
            return False
        return all(map(_fits, wanted, segments))

    def __str__(self) -> str:
        return self.text


def _segment(text: str) -> str | re.Pattern[str]:
    return text if text == "*" or "*" not in text else glob(text)


def _fits(wanted: str | re.Pattern[str], segment: str) -> bool:
    if isinstance(wanted, str):
        return segment == wanted or (wanted == "*" and segment != "")
    return wanted.fullmatch(segment) is not None


def stems(path: str) -> Iterator[str]:
    """Every stem that a pattern holding this canonical path can have, longest first: `/a/b`, `/a` and ``."""
    path = path.rstrip("/")
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""


def pattern(text: str) -> PathPattern:
    """The pattern a rule's path stands for. Raises AmbiguousPathError."""
    return PathPattern(canonical(text))
