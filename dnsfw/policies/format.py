"""`dnsfw fmt`: a policy's text in its one canonical form, comments kept.

Law: formatting changes no rule. What is said where stays said there: headers, placeholders, includes and users are
written as their author wrote them, and the result is compared, rule by rule, with what was meant before.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from enum import Enum
from itertools import pairwise
from pathlib import Path

from dnsfw.errors import DnsfwError, UsageError
from dnsfw.policies.reading import bounded
from dnsfw.policies.workflow import SUFFIXES
from dnsfw.terminal import answer, show
from policy import Attribute, Key, Kind, PolicyInvalid, Rule
from policy.line import UNSAID, Line, Token, Transport
from policy.parse import TEXT_LIMIT, parse, tokens
from policy.placeholders import Placeholders
from policy.render import render_attribute
from policy.report import show_invalid
from policy.rules import SCHEME_PORTS, TCP

_STDIN = Path("-")
_NAMES = ("owner", "repo")
_READS = frozenset({"GET", "HEAD"})
_COMMENT = re.compile(r"(?:^|[ \t])(#.*)$")


class Mode(Enum):
    """What to do with a file that isn't in canonical form."""

    WRITE = "write"
    CHECK = "check"
    DIFF = "diff"


def format_files(files: Sequence[Path], mode: Mode) -> int:
    """The exit status: 0; 1 if a file was not in canonical form and was left so; 2 if one is not valid."""
    return max(_format_file(file, mode) for file in files)


def _format_file(file: Path, mode: Mode) -> int:
    if file.suffix in SUFFIXES:
        raise UsageError(f"{file} is a workflow; only policy files are formatted.", "Put the policy in its own file.")
    try:
        content = sys.stdin.buffer.read(TEXT_LIMIT + 1) if file == _STDIN else bounded(file)
        before = content.decode(errors="replace")
        after = formatted(content, str(file))
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}.", "Name a policy file.") from error
    except PolicyInvalid as invalid:
        show(show_invalid(invalid))
        return 2
    if mode is Mode.WRITE:
        _write(file, before, after)
        return 0
    if mode is Mode.DIFF:
        lines = unified_diff(before.split("\n"), after.split("\n"), str(file), f"{file} (canonical)", lineterm="")
        answer("\n".join(lines))
    elif before != after:
        answer(f"{file}: not in canonical form")
    return int(before != after)


def _write(file: Path, before: str, after: str) -> None:
    if file == _STDIN:
        sys.stdout.write(after)
    elif before != after:
        try:
            file.write_text(after, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{file} can't be written: {error.strerror}.", "Nothing was changed.") from error


def formatted(content: bytes, file: str) -> str:
    """The policy in canonical form. Raises PolicyInvalid."""
    marks = _marks(content)
    rules = _rules(content, file, marks)
    text = content.decode().removeprefix("\ufeff")
    made = _spaced(_Formatter(marks).lines(text))
    if _rules(made.encode(), file, marks) != rules:
        raise DnsfwError(f"{file}: its canonical form would mean something else.", "Please report this policy.")
    return made


def _marks(content: bytes) -> dict[str, str]:
    """A plain word for each placeholder, one that the text doesn't have, so that the grammar can read it."""
    taken = content.decode(errors="replace").lower()
    number = next(n for n in range(len(taken) + 1) if f"x{n}x" not in taken)
    return {name: f"x{number}x{name}" for name in _NAMES}


def _rules(content: bytes, file: str, marks: dict[str, str]) -> tuple[Rule, ...]:
    """What the text means by itself: includes are empty, and each user's name has some number."""
    users: dict[str, int] = {}
    return parse(
        content,
        file,
        uid_of=lambda name: users.setdefault(name, 2**32 + len(users)),
        load=lambda verb, name: (f"@{verb} {name}", b""),
        placeholders=marks,
    ).rules


def _spaced(lines: Iterator[str]) -> str:
    """One empty line at most between others, none at the ends."""
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-1]):
            kept.append(line)
    return "\n".join(kept).strip("\n") + "\n" if any(kept) else ""


@dataclass(slots=True)
class _Formatter:
    """Goes through a valid text, line by line; `transport` and `methods` tell whether the header above says any."""

    marks: dict[str, str]
    transport: bool = False
    methods: bool = False

    def lines(self, text: str) -> Iterator[str]:
        placeholders = Placeholders(self.marks)
        for line in text.split("\n"):
            filled = placeholders.fill(line.removesuffix("\r"))
            found = list(tokens(filled))
            said = self._line(found) if found else ""
            comment = _COMMENT.search(filled, _end(found))
            whole = "  ".join(filter(None, (said, comment[1].rstrip() if comment else "")))
            for name, mark in self.marks.items():
                whole = whole.replace(mark, f"{{{name}}}")
            yield whole

    def _line(self, found: list[Token]) -> str:
        if found[0].name == "verb":
            return f"@{found[0].text} {found[1].text}"
        line = Line(found, lambda _name: 0)
        if found[0].name == "open":
            return self._header(line)
        deny = "deny" in line.first
        place = ("!" if deny else "") + (
            self._url(line, deny=deny) if line.kind is Kind.URL else self._site(line, deny=deny)
        )
        return " ".join([place, *_options(line)])

    def _header(self, line: Line) -> str:
        based = "scheme" in line.first
        lead = _base(line, _ports(line.transport())).removesuffix("/") if based else _transport(line.transport())
        self.transport = not based and line.transport() is not None
        self.methods = line.methods() != UNSAID
        lead = lead or _methods(line.methods())
        return f"[{' '.join(filter(None, [lead, *_options(line)]))}]"

    def _url(self, line: Line, *, deny: bool) -> str:
        unsaid = None if deny else _READS
        methods = line.methods()
        spoken = "" if methods == unsaid and not self.methods else _methods(methods)
        if "scheme" not in line.first:
            return " ".join(filter(None, (spoken, line.path())))
        said = line.transport()
        usual = None if deny else frozenset({SCHEME_PORTS[line.scheme()]})
        ports = "" if said is None or (said.ports == usual and not self.transport) else _ports(said)
        return " ".join(filter(None, (spoken, _base(line, ports))))

    def _site(self, line: Line, *, deny: bool) -> str:
        if line.kind is Kind.DNS:
            return f"dns:{_host(line)}"
        said = line.transport()
        if said is not None and not deny and said.protos == TCP:
            said = Transport(None, said.ports)
        usual = Transport(None, None if deny else frozenset({443}))
        transport = "" if said == usual and not self.transport else _transport(said)
        if line.kind is Kind.HOST:
            return _host(line) + transport
        place = str(line.network())
        place = place.removesuffix("/32" if "." in place and ":" not in place else "/128")
        return (f"[{place}]" if ":" in place and transport else place) + transport


def _end(found: list[Token]) -> int:
    return found[-1].start + len(found[-1].text) if found else 0


def _base(line: Line, ports: str) -> str:
    path = line.path() if "path" in line.first else ""
    return f"{line.scheme()}://{_host(line)}{ports}{path}"


def _host(line: Line) -> str:
    """As written but for case and the root's dot: people read a name better than its A-labels."""
    written = line.first["host"].text.removesuffix(".")
    return written.lower() if written.isascii() else written


def _transport(said: Transport | None) -> str:
    if said is None:
        return ""
    if said.protos is not None and said.ports is None and not said.protos & {6, 17}:
        return "/icmp"
    proto = "" if said.protos is None else "/tcp" if said.protos == TCP else "/udp"
    return _ports(said) + proto


def _ports(said: Transport | None) -> str:
    if said is None:
        return ""
    return ":*" if said.ports is None else ":" + "|".join(map(str, sorted(said.ports)))


def _methods(methods: frozenset[str] | None) -> str:
    return "*" if methods is None else "|".join(sorted(methods))


def _options(line: Line) -> list[str]:
    who = [_attribute(key, value) for key, value in pairwise(line.tokens) if key.name == "key"]
    within = [f"within={'|'.join(map(str, line.within()))}"] if line.within() else []
    return [*who, *sorted(line.flags()), *within]


def _attribute(key: Token, value: Token) -> str:
    """Through `render_attribute`, for its quotes; a user stays as written."""
    name, _, index = key.text.rstrip("]").partition("[")
    text = value.text if value.name == "bare" else value.text[1:-1]
    literal = value.name == "quoted" or "*" not in text
    return render_attribute(Attribute(Key(name), text, literal, int(index) if index else None))
