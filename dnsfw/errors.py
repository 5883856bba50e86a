"""Errors that a person can mend.

Law: one class an exit status; each carries a sentence saying what is wrong and one saying what to do about it.
"""

from __future__ import annotations

EXIT_DENIED = 3  # --fail-on-deny: the command ended well, but something was denied
EXIT_USAGE = 2
EXIT_SETUP = 125  # container tools' convention (docker-run(1), env(1)): we failed, not the command
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


class DnsfwError(Exception):
    """`problem` is one sentence; `remedy` says what to do, "" if nothing can be done."""

    exit_status = EXIT_SETUP

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n  {self.remedy}" if self.remedy else self.problem


class SetupError(DnsfwError):
    """The guard can't be set up on this machine; nothing was changed, or all of it was put back."""


class UsageError(DnsfwError):
    """What the caller gave us (an option, a policy) can't be used."""

    exit_status = EXIT_USAGE
