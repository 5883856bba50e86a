"""What a guard is told to do: one typed value, out of defaults, the machine's file and the command line.

Law: pure but for the reading of that one file. Each part of the value knows where it came from. A mistake is told with
its key and line; a file that anybody but root could change is not read at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, field

from dnsfw.errors import UsageError
from dnsfw.machine.custody import replaceable
from policy import Limits

CONFIG: Final = Path("/etc/dnsfw/config.toml")
_LARGEST: Final = 64 << 10
_OF_THE_MACHINE: Final = ("upstreams", "refused", "budget", "journal.mebibytes", "journal.files")
_PATHS: Final = ("policy", "token_file", "journal.file")

type _Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
type Raw = dict[str, Any]


class JournalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where decisions are written; a full file is turned over, and `files` of them are kept."""

    file: str = ""
    mebibytes: Annotated[int, Meta(ge=1, le=65_536)] = 64
    files: Annotated[int, Meta(ge=1, le=1_000)] = 5


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The loopback port that Prometheus may read; 0: none."""

    port: Annotated[int, Meta(ge=0, le=65_535)] = 0


class BudgetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For each wildcard of the policy: new names, and octets in them, a minute and in all (policy/budget.py)."""

    names_a_minute: _Count = Limits().names_a_minute
    octets_a_minute: _Count = Limits().octets_a_minute
    names_a_job: _Count = Limits().names_a_job
    octets_a_job: _Count = Limits().octets_a_job


class LockdownSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is taken from users while the host is guarded: sudo(8) and the container engines' sockets from the user that
    is named, user namespaces and ptrace(2) from all."""

    sudo: str = ""
    containers: str = ""
    user_namespaces: bool = False
    ptrace: bool = False


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it. What is "" is not set."""

    policy: str = ""
    audit: bool = False
    upstreams: tuple[str, ...] = ()
    refused: bool = False
    repo: str = ""
    token_file: str = ""
    install_ca: bool = False
    set_resolver: bool = False
    journal: JournalSettings = field(default_factory=JournalSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    lockdown: LockdownSettings = field(default_factory=LockdownSettings)


@dataclass(frozen=True, slots=True)
class Given:
    """Settings of one source: by dotted key, the value and where it stands."""

    values: Mapping[str, Any]
    places: Mapping[str, str]

    def of_the_machine(self) -> Given:
        """What also holds for a single command: not the host's policy, nor its mode."""
        kept = {key: value for key, value in self.values.items() if key.startswith(_OF_THE_MACHINE)}
        return Given(kept, self.places)


@dataclass(frozen=True, slots=True)
class Effective:
    """What holds, and by dotted key where it came from."""

    settings: Settings
    origins: Mapping[str, str]


NOTHING: Final = Given({}, {})


def effective(*sources: Given) -> Effective:
    """Later sources win over earlier ones; what none of them says is the default."""
    merged: Raw = {}
    origins = dict.fromkeys(_flat(msgspec.to_builtins(Settings())), "default")
    for source in sources:
        merged |= source.values
        origins |= {key: source.places[key] for key in source.values}
    return Effective(msgspec.convert(_nested(merged), Settings), origins)


def read_config(path: Path = CONFIG) -> Given:
    """The machine's file; nothing, if there is none. Raises UsageError."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1).decode()
    except FileNotFoundError:
        return NOTHING
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"The configuration {path} can't be read: {why}.", "Name another: --config FILE") from error
    who = replaceable(path)
    if who:
        raise UsageError(f"The configuration {path} is not root's alone: {who}.", "chown root, chmod go-w")
    return parse_config(text, str(path))


def parse_config(text: str, file: str) -> Given:
    """Raises UsageError with the key and the line that is wrong."""
    import tomllib  # noqa: PLC0415 - few machines have the file

    if len(text) > _LARGEST:
        raise UsageError(f"The configuration {file} is longer than {_LARGEST >> 10} KiB.")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The configuration {file} is not TOML: {error}.") from error
    values = _flat(raw)
    lines = _lines(text, values)
    try:
        settings = msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        key, what = _mistake(str(error))
        raise _wrong(file, lines, key, what) from error
    for key in _PATHS:
        if values.get(key) and not str(values[key]).startswith("/"):
            raise _wrong(file, lines, key, "a path has to begin with / here")
    _check_upstreams(settings, file, lines)
    return Given(values, {key: f"{file}:{lines[key]}" for key in values})


def _check_upstreams(settings: Settings, file: str, lines: Mapping[str, int]) -> None:
    from resolver.upstreams import UpstreamError, parse_upstream  # noqa: PLC0415 - as above

    for each in settings.upstreams:
        try:
            parse_upstream(each)
        except UpstreamError as error:
            raise _wrong(file, lines, "upstreams", str(error)) from error


def _wrong(file: str, lines: Mapping[str, int], key: str, what: str) -> UsageError:
    line = next((lines[each] for each in lines if each == key or each.startswith(f"{key}.")), None)
    place = file if line is None else f"{file}:{line}"
    return UsageError(f"{place}: {key}: {what}.", "`dnsfw config` shows all keys and their values.")


def _mistake(said: str) -> tuple[str, str]:
    """msgspec's words: the key that is meant, and what is wrong with it."""
    found = re.fullmatch(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?", said, re.DOTALL)
    what, where = (found["what"], found["where"] or "") if found else (said, "")
    unknown = re.search(r"unknown field `(.*)`", what)
    if unknown:
        return ".".join(filter(None, (where, unknown[1]))), "there is no such key"
    return where.partition("[")[0], what[0].lower() + what[1:]


def _lines(text: str, values: Mapping[str, Any]) -> dict[str, int]:
    """The line where each key's value begins: the first one with which the text has it, as far as it is TOML."""
    import tomllib  # noqa: PLC0415 - as above

    found: dict[str, int] = {}
    lines = text.splitlines(keepends=True)
    whole = 0  # so many lines are TOML by themselves
    for number in range(1, len(lines) + 1):
        try:
            known = _flat(tomllib.loads("".join(lines[:number])))
        except tomllib.TOMLDecodeError:
            continue  # within a value of several lines
        found |= {key: whole + 1 for key in known if key in values and key not in found}
        whole = number
    return found


def show(effective: Effective) -> str:
    """TOML again, each line with its origin."""
    flat = _flat(msgspec.to_builtins(effective.settings))
    lines: list[str] = []
    table = ""
    for key, value in flat.items():
        head, _, name = key.rpartition(".")
        if head != table:
            lines += ["", f"[{head}]"]
            table = head
        lines.append(f"{f'{name} = {_toml(value)}':<40} # {effective.origins[key]}")
    return "\n".join([*lines, ""])


def _toml(value: object) -> str:
    """A string, a number, a truth or an array of strings; JSON's notation of them is TOML's too (toml.io, v1.0.0)."""
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def _flat(nested: Mapping[str, Any], above: str = "") -> Raw:
    return dict(_leaves(nested, above))


def _leaves(nested: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _nested(flat: Mapping[str, Any]) -> Raw:
    made: Raw = {}
    for key, value in flat.items():
        *tables, name = key.split(".")
        inner = made
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[name] = value
    return made
