"""Which step of a GitHub Actions job a process belongs to, from how the runner started the step's first process.

Law: pure, and believes only what the runner itself puts there. Before each start it sets GITHUB_ACTION and
GITHUB_WORKSPACE over whatever earlier steps wrote to GITHUB_ENV. It sets GITHUB_ACTION_REPOSITORY for an action from a
repository only: in a script's environment that variable may be an earlier step's word. What tells the two apart is the
command line, which is the runner's in any case: an action's program lies below the folder of that very action.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Step:
    """A step's id, or the name that the runner gave it, and the repository of the action that it is. None: unknown."""

    step: str | None
    action: str | None


UNKNOWN_STEP = Step(None, None)


def read_step(argv: tuple[str, ...], environment: tuple[str, ...]) -> Step:
    """The step whose first process was started so: both are as the kernel got them with that process's first execve."""
    variables = [string.partition("=") for string in environment]
    values = {name: value for name, _, value in variables}
    if len(values) != len(variables):  # one name twice: programs differ in which they take
        return UNKNOWN_STEP
    step = values.get("GITHUB_ACTION") or None
    return Step(step, _action(argv, values) if step else None)


def _action(argv: tuple[str, ...], values: dict[str, str]) -> str | None:
    repository, workspace = values.get("GITHUB_ACTION_REPOSITORY", ""), values.get("GITHUB_WORKSPACE", "")
    if not _REPOSITORY.fullmatch(repository) or not workspace.startswith("/"):
        return None
    work = posixpath.dirname(posixpath.dirname(workspace.rstrip("/")))  # WORK/REPOSITORY/REPOSITORY
    folder = posixpath.join(work, "_actions", repository) + "/"
    below = [argument for argument in argv[1:] if argument.startswith(folder)]
    return repository if any(posixpath.normpath(argument) == argument for argument in below) else None
