"""Text in, a policy or all that is wrong with it out.

Law: pure. Whatever outside fact a policy may mention (a user's number, a placeholder's value, another file) comes from
the caller. Line by line, so time is linear in the text; PolicyInvalid is the only exception that leaves.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from parsimonious.exceptions import ParseError
from parsimonious.nodes import Node

from policy.build import NO_TERMS, Base, Terms, header, rule
from policy.errors import PolicyInvalid, PolicySyntaxError
from policy.grammar import LINE
from policy.hints import explain
from policy.index import Policy
from policy.line import LineError, Token, UidOf
from policy.names import Pattern
from policy.placeholders import PLACEHOLDER, Placeholders
from policy.rules import Rule, Source

TEXT_LIMIT = 4 << 20  # characters, in each file
LINE_LIMIT = 4096  # characters
DEPTH_LIMIT = 8  # files that include each other
ERROR_LIMIT = 1000  # then nobody reads on

type Load = Callable[[str, str], tuple[str, str | bytes]]
"""What stands behind `@include NAME` or `@registry NAME`: (verb, name) to (file, text). Raises LookupError."""

_LEAVES = (
    "verb word open deny resolve scheme host path methods network4 network6 bracketed"
    " icmp ports proto key quoted backticked bare networks flag"
)
_TOKENS = frozenset(_LEAVES.split())
# Text has no control characters but tabs (Unicode, category Cc).
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")

# Stands for a header that was refused: what it meant is not known, but path rules below it need no second complaint.
_BROKEN = Terms(base=Base("https", Pattern("invalid"), None))


def _no_users(name: str) -> int:
    raise LookupError(name)


def _no_files(verb: str, name: str) -> tuple[str, str]:
    raise LookupError(f"@{verb} {name} can't be taken in here")


def parse(
    text: str | bytes,
    file: str,
    *,
    uid_of: UidOf = _no_users,
    load: Load = _no_files,
    placeholders: Mapping[str, str] = MappingProxyType({}),
) -> Policy:
    """The policy that `text` is. `file` is what errors and rules call it.

    `uid_of` turns a user name into its uid and raises LookupError. Raises PolicyInvalid.
    """
    reader = _Reader(uid_of, load, placeholders)
    reader.read(text, file)
    if reader.errors:
        raise PolicyInvalid(reader.errors)
    return Policy(tuple(reader.rules))


class _Reader:
    """Gathers the rules and errors of a text and of what it includes."""

    def __init__(self, uid_of: UidOf, load: Load, placeholders: Mapping[str, str]) -> None:
        self.rules: list[Rule] = []
        self.errors: list[PolicySyntaxError] = []
        self._uid_of = uid_of
        self._load = load
        self._placeholders = Placeholders(placeholders)
        self._open: list[str] = []  # files being read, outermost first
        self._done: set[str] = set()

    def read(self, text: str | bytes, file: str) -> None:
        decoded = self._decode(text, file)
        self._open.append(file)
        above = NO_TERMS
        for number, line in enumerate(decoded.removeprefix("\ufeff").split("\n"), start=1):
            source = Source(file, number, 1, line.removesuffix("\r"))
            if len(self.errors) >= ERROR_LIMIT:
                self._complain(source, LineError(0, f"after {ERROR_LIMIT} errors the rest is not read"))
                break
            try:
                above = self._line(source, above)
            except LineError as error:
                self._complain(source, error)
                if source.text.lstrip().startswith("["):
                    above = _BROKEN
        self._done.add(self._open.pop())

    def _decode(self, text: str | bytes, file: str) -> str:
        """The text, or "" and an error where it is no text or too much of it."""
        if len(text) > TEXT_LIMIT:
            self.errors.append(PolicySyntaxError(file, 1, 1, "", f"a policy has at most {TEXT_LIMIT} characters"))
            return ""
        if isinstance(text, str):
            return text
        text = text.removeprefix(BOM_UTF8)
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            before = text[: error.start].decode().split("\n")
            place = (file, len(before), len(before[-1]) + 1, before[-1])
            self.errors.append(PolicySyntaxError(*place, "not UTF-8", "save the file as UTF-8"))
            return ""

    def _complain(self, source: Source, error: LineError) -> None:
        column = self._placeholders.origin(source.text, error.start) + 1
        self.errors.append(PolicySyntaxError(source.file, source.line, column, source.text, error.reason, error.hint))

    def _line(self, source: Source, above: Terms) -> Terms:
        """Take in one line and return the header that the next one stands under."""
        text = self._placeholders.fill(source.text)  # offsets are this one's: _complain() leads them back
        if len(text) > LINE_LIMIT:
            raise LineError(LINE_LIMIT, f"a line has at most {LINE_LIMIT} characters")
        if control := _CONTROL.search(text):
            raise LineError(control.start(), f"a control character, {control[0]!r}", "a policy is plain text")
        found = list(tokens(text))
        if not found:
            return above
        if found[0].name == "open":
            return header(found, self._uid_of)
        if found[0].name == "verb":
            self._include(*found)
        else:
            placed = replace(source, column=found[0].start + 1)
            self.rules.append(rule(found, above, self._uid_of, placed))
        return above

    def _include(self, verb: Token, name: Token) -> None:
        try:
            file, text = self._load(verb.text, name.text)
        except LookupError as error:
            raise LineError(name.start, f"nothing to take in: {error}") from error
        if file in self._open:
            raise LineError(name.start, f"{file} includes itself: {' → '.join([*self._open, file])}")
        if len(self._open) == DEPTH_LIMIT:
            raise LineError(name.start, f"more than {DEPTH_LIMIT} files deep")
        if file not in self._done:
            self.read(text, file)


def tokens(text: str) -> Iterator[Token]:
    """The tokens of one line, in order; none for an empty one or a comment. Raises LineError."""
    try:
        tree = LINE.parse(text)
    except ParseError as error:
        raise explain(text, error.pos) from None
    stack: list[Node] = [tree]
    while stack:
        node = stack.pop()
        if node.expr_name in _TOKENS:
            yield _token(node)
        else:
            stack.extend(reversed(node.children))


def _token(node: Node) -> Token:
    text = node.text
    if "{" in text and (left := PLACEHOLDER.search(text)):
        place = node.start + left.start()
        raise LineError(place, f"{left[0]} has no value that is a plain word", "give --repo OWNER/NAME")
    return Token(node.expr_name, text, node.start)
