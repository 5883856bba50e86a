"""Text in, a policy or all that is wrong with it out.

Law: pure. Whatever outside fact a policy may mention (a user's number, a placeholder's value, another file) comes from
the caller. Line by line, so time is linear in the text; PolicyInvalid is the only exception that leaves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from parsimonious.exceptions import ParseError
from parsimonious.nodes import Node

from policy.build import NO_TERMS, Terms, header, rule
from policy.errors import PolicyInvalid, PolicySyntaxError
from policy.grammar import LINE
from policy.hints import explain
from policy.index import Policy
from policy.line import LineError, Token, UidOf
from policy.rules import Rule, Source

TEXT_LIMIT = 4 << 20  # characters, in each file
LINE_LIMIT = 4096  # characters

type Load = Callable[[str, str], tuple[str, str | bytes]]
"""What stands behind `@include NAME` or `@registry NAME`: (verb, name) to (file, text). Raises LookupError."""

_LEAVES = (
    "verb word open deny resolve scheme host path methods network4 network6 bracketed"
    " icmp ports proto key quoted backticked bare networks flag"
)
_TOKENS = frozenset(_LEAVES.split())
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
# GitHub's own rule for owners and repositories: nothing that means something in a policy can be in it.
_PLAIN_VALUE = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}")


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
        self._placeholders = placeholders
        self._open: list[str] = []  # files being read, outermost first
        self._done: set[str] = set()

    def read(self, text: str | bytes, file: str) -> None:
        decoded = self._decode(text, file)
        self._open.append(file)
        above: Terms | None = NO_TERMS
        for number, line in enumerate(decoded.removeprefix("\ufeff").split("\n"), start=1):
            source = Source(file, number, 1, line.removesuffix("\r"))
            try:
                above = self._line(source, above)
            except LineError as error:
                self._complain(source, error)
                if source.text.lstrip().startswith("["):
                    above = None  # what a broken header meant is not known: its rules are read, not judged
        self._done.add(self._open.pop())

    def _decode(self, text: str | bytes, file: str) -> str:
        """The text, or "" and an error where it is no text or too much of it."""
        if len(text) > TEXT_LIMIT:
            self.errors.append(PolicySyntaxError(file, 1, 1, "", f"a policy has at most {TEXT_LIMIT} characters"))
            return ""
        if isinstance(text, str):
            return text
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            before = text[: error.start].decode().split("\n")
            place = (file, len(before), len(before[-1]) + 1, before[-1])
            self.errors.append(PolicySyntaxError(*place, "not UTF-8", "save the file as UTF-8"))
            return ""

    def _complain(self, source: Source, error: LineError) -> None:
        column = error.start + 1
        self.errors.append(PolicySyntaxError(source.file, source.line, column, source.text, error.reason, error.hint))

    def _line(self, source: Source, above: Terms | None) -> Terms | None:
        """Take in one line and return the header that the next one stands under."""
        if len(source.text) > LINE_LIMIT:
            raise LineError(LINE_LIMIT, f"a line has at most {LINE_LIMIT} characters")
        tokens = list(_tokens(self._filled(source.text)))
        if not tokens:
            return above
        if tokens[0].name == "open":
            return header(tokens, self._uid_of)
        if tokens[0].name == "verb":
            self._include(*tokens)
        elif above is not None:
            column = tokens[0].start + 1
            placed = Source(source.file, source.line, column, source.text)
            self.rules.append(rule(tokens, above, self._uid_of, placed))
        return above

    def _include(self, verb: Token, name: Token) -> None:
        try:
            file, text = self._load(verb.text, name.text)
        except LookupError as error:
            raise LineError(name.start, f"nothing to take in: {error.args[0]}") from error
        if file in self._open:
            raise LineError(name.start, f"{file} includes itself: {' → '.join([*self._open, file])}")
        if file not in self._done:
            self.read(text, file)

    def _filled(self, text: str) -> str:
        """The line with its placeholders replaced, each by a value that can't be anything but a word."""
        return _PLACEHOLDER.sub(self._value, text) if "{" in text else text

    def _value(self, found: re.Match[str]) -> str:
        value = self._placeholders.get(found[1])
        if value is None:
            raise LineError(found.start(), f"{found[0]} has no value", "give --repo OWNER/NAME")
        if not _PLAIN_VALUE.fullmatch(value):
            raise LineError(found.start(), f"{found[0]} would be {value!r}, which is no plain word")
        return value


def _tokens(text: str) -> Iterator[Token]:
    try:
        tree = LINE.parse(text)
    except ParseError as error:
        raise explain(text, error.pos, error.expr.name) from None
    stack: list[Node] = [tree]
    while stack:
        node = stack.pop()
        if node.expr_name in _TOKENS:
            yield Token(node.expr_name, node.text, node.start)
        else:
            stack.extend(reversed(node.children))
