"""From a policy file to a policy that can be enforced.

Law: the file is read once, and what it refers to outside itself (users, files beside it) is looked up here.
"""

from __future__ import annotations

import pwd
from collections.abc import Callable
from pathlib import Path

from dnsfw.errors import UsageError
from policy import Kind, Policy, PolicyInvalid, PolicySyntaxError
from policy.parse import parse

DEFAULT = Path("dnsfw.policy")
_SHOWN = 20


def load_policy(path: Path | None) -> Policy:
    """`path`, else `dnsfw.policy` in the current folder, else the empty policy, which denies everything.

    Raises UsageError with every mistake in it.
    """
    if path is None:
        path = DEFAULT if DEFAULT.exists() else None
    if path is None:
        return Policy(())
    text = _read(path)
    try:
        policy = parse(text, str(path), uid_of=_uid_of, load=_beside(path))
    except PolicyInvalid as invalid:
        raise UsageError(_told(path, invalid.errors), "Nothing was started. Mend the policy and try again.") from None
    _refuse_urls(policy)
    return policy


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"The policy {path} can't be read: {error.strerror}.", "Name another: --policy FILE"
        ) from error


def _uid_of(name: str) -> int:
    return pwd.getpwnam(name).pw_uid  # raises KeyError, a LookupError


def _beside(policy: Path) -> Callable[[str, str], tuple[str, bytes]]:
    """How this policy's `@include NAME` finds a file: in the policy's own folder, by a name without folders."""

    def load(verb: str, name: str) -> tuple[str, bytes]:
        if verb != "include":
            raise LookupError(f"@{verb} is not built yet")
        found = policy.parent / name
        if Path(name).name != name or not found.is_file():
            raise LookupError(f"there is no file {name} beside {policy}")
        return str(found), found.read_bytes()

    return load


def _told(path: Path, errors: tuple[PolicySyntaxError, ...]) -> str:
    lines = [f"The policy {path} has {len(errors)} mistake{'s' if len(errors) > 1 else ''}:"]
    for error in errors[:_SHOWN]:
        lines += [f"  {error}", f"    {error.text}", f"    {' ' * (error.column - 1)}^"]
    if len(errors) > _SHOWN:
        lines.append(f"  … and {len(errors) - _SHOWN} more")
    return "\n".join(lines)


def _refuse_urls(policy: Policy) -> None:
    """Rules that look at URLs need the proxy, which isn't built yet: refused, not ignored."""
    urls = [rule for rule in policy.rules if rule.kind is Kind.URL]
    if urls:
        places = ", ".join(str(rule.source) for rule in urls[:5])
        raise UsageError(
            f"Rules with URLs can't be enforced yet ({places}).", "Write a host rule instead: it allows the whole host."
        )
