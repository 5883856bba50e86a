"""From a policy file to a policy that can be enforced.

Law: the file is read once, and what it refers to outside itself (users, presets, files beside it, this machine's
registries, the repository) is looked up here, while it is loaded: what came out is pinned.
"""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

import msgspec

from dnsfw.errors import UsageError
from dnsfw.machine.privilege import User
from dnsfw.policies.pinned import Pinned, Taken
from policy import Kind, Policy, PolicyInvalid, PolicySyntaxError
from policy.inspected import inspected, too_many
from policy.parse import TEXT_LIMIT, Load, parse

DEFAULT = Path("dnsfw.policy")
PRESETS = Path(__file__).with_name("presets")
_SHOWN = 20
_ASKING_SECONDS = 20.0  # for all tools together; the engine has 30 to start


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Whom and where a policy is loaded for. `repository` is --repo's OWNER/NAME, "" if it wasn't given."""

    environ: Mapping[str, str]
    user: User
    repository: str = ""

    def placeholders(self) -> dict[str, str]:
        """The values of `{owner}` and `{repo}`; empty where no repository is known."""
        owner, _, name = (self.repository or self.environ.get("GITHUB_REPOSITORY", "")).partition("/")
        return {"owner": owner, "repo": name}


class Library:
    """Answers a policy's `@include` and `@registry`. `taken` is what was taken in, in order, each once."""

    def __init__(self, folder: Path, surroundings: Surroundings) -> None:
        self.taken: dict[tuple[str, str], Taken] = {}
        self._folder = folder
        self._surroundings = surroundings
        self._asked_until: float | None = None

    def load(self, verb: str, name: str) -> tuple[str, bytes]:
        """The file's name and its text. Raises LookupError."""
        if (verb, name) not in self.taken:
            found = self._registry(name) if verb == "registry" else self._include(name)
            self.taken[verb, name] = Taken(verb, name, *found)
        taken = self.taken[verb, name]
        return taken.file, taken.text

    def _include(self, name: str) -> tuple[str, bytes]:
        """A preset of that name, which no file can stand in for; else the file of that name beside the policy."""
        shipped, beside = PRESETS / f"{name}.policy", self._folder / name
        if shipped.is_file():
            return f"@{name}", shipped.read_bytes()
        if Path(name).name != name or not beside.is_file():
            raise LookupError(f"no file {name} in {self._folder}, and no preset ({', '.join(preset_names())})")
        try:
            return str(beside), bounded(beside)
        except OSError as error:
            raise LookupError(f"{beside} can't be read: {error.strerror}") from error

    def _registry(self, name: str) -> tuple[str, bytes]:
        from dnsfw.machine.asking import Asking  # noqa: PLC0415 - few policies need it
        from dnsfw.policies.registries import registry_rules  # noqa: PLC0415

        if self._asked_until is None:
            self._asked_until = time.monotonic() + _ASKING_SECONDS
        ask = Asking(self._surroundings.user, self._surroundings.environ, self._asked_until)
        return f"@registry {name}", registry_rules(name, ask).encode()


def preset_names() -> list[str]:
    """What ships with dnsfw, by the names that `@include` knows."""
    return sorted(path.stem for path in PRESETS.glob("*.policy"))


class Loaded(NamedTuple):
    """A policy, and all of the text that it came from."""

    policy: Policy
    pinned: Pinned = Pinned()

    @property
    def file(self) -> str:
        """From the root; "" if there is none."""
        return self.pinned.file


def load_policy(path: Path | None, surroundings: Surroundings) -> Loaded:
    """`path`, else `dnsfw.policy` in the current folder, else the empty policy, which denies everything.

    Raises UsageError with every mistake in it.
    """
    if path is None:
        path = DEFAULT if DEFAULT.exists() else None
    return _enforceable(Loaded(Policy(())) if path is None else _loaded(path, surroundings))


def pinned_policy(pinned: Pinned) -> Loaded:
    """The same policy again. Raises UsageError only where this dnsfw is not the one that pinned it."""
    if not pinned.path:
        return Loaded(Policy(()))
    return _enforceable(_parsed(pinned, pinned.load, pinned.users.__getitem__))


def valid_policy(path: Path, surroundings: Surroundings) -> Policy:
    """The policy in that file, whether or not it can be enforced. Raises UsageError with every mistake in it."""
    return _loaded(path, surroundings).policy


def _loaded(path: Path, surroundings: Surroundings) -> Loaded:
    library, users = Library(path.parent, surroundings), dict[str, int]()

    def uid_of(name: str) -> int:
        return users.setdefault(name, _uid_of(name))

    read_now = Pinned(str(path), str(path.absolute()), read(path), placeholders=surroundings.placeholders())
    loaded = _parsed(read_now, library.load, uid_of)
    pinned = msgspec.structs.replace(read_now, taken=tuple(library.taken.values()), users=users)
    return loaded._replace(pinned=pinned)


def _parsed(pinned: Pinned, load: Load, uid_of: Callable[[str], int]) -> Loaded:
    try:
        policy = parse(pinned.text, pinned.path, uid_of=uid_of, load=load, placeholders=pinned.placeholders)
    except PolicyInvalid as invalid:
        told = _told(pinned.path, invalid.errors)
        raise UsageError(told, "Nothing was started. Mend the policy and try again.") from None
    return Loaded(policy, pinned)


def unenforceable(policy: Policy) -> PolicySyntaxError | None:
    """What stands in the way of enforcing a policy that is valid, at the line where it begins."""
    names = inspected(policy)
    if not too_many(names):
        return None
    first = next(rule.source for rule in policy.rules if rule.kind is Kind.URL)
    reason = f"rules with URLs name {len(names)} hosts: too many for the proxy's certificate"
    return PolicySyntaxError(first.file, first.line, first.column, first.text, reason, "name a wildcard above them")


def _enforceable(loaded: Loaded) -> Loaded:
    if (wrong := unenforceable(loaded.policy)) is not None:
        raise UsageError(_told(loaded.file, (wrong,)), "Nothing was started. Mend the policy and try again.")
    return loaded


def parse_policy(text: str | bytes, file: str, library: Library, surroundings: Surroundings) -> Policy:
    """The policy that `text` is on this machine. Raises PolicyInvalid."""
    return parse(text, file, uid_of=_uid_of, load=library.load, placeholders=surroundings.placeholders())


def read(path: Path) -> bytes:
    """What the file holds, up to more than any policy may. Raises UsageError."""
    try:
        return bounded(path)
    except OSError as error:
        raise UsageError(f"The policy {path} can't be read: {error.strerror}.", "Name another policy file.") from error


def bounded(path: Path) -> bytes:
    """A file's bytes: all of them, or enough to be refused as too many. Raises OSError."""
    with path.open("rb") as file:
        return file.read(TEXT_LIMIT + 1)


def _uid_of(name: str) -> int:
    return pwd.getpwnam(name).pw_uid  # raises KeyError, a LookupError


def _told(path: str, errors: tuple[PolicySyntaxError, ...]) -> str:
    from policy.report import show_error  # noqa: PLC0415 - a valid policy needs none of it

    lines = [f"The policy {path} has {len(errors)} mistake{'s' if len(errors) > 1 else ''}:"]
    lines += [indent(show_error(error), "  ") for error in errors[:_SHOWN]]
    if len(errors) > _SHOWN:
        lines.append(f"  … and {len(errors) - _SHOWN} more")
    return "\n".join(lines)
