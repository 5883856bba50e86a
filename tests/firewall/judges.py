"""A judge for tests without a kernel: one policy of names, and a record of what it was asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from policy.values import Action, Flow, Seen, Spoken


@dataclass
class Names:
    """Allows `good` names; opens everything as `opens` says. The case is the flow."""

    good: frozenset[str | None] = frozenset({"a.example"})
    opens: Action = Action.PEEK
    policy: int = 1
    opened: list[Flow] = field(default_factory=list)
    told: list[Seen] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def open(self, flow: Flow) -> tuple[Action, Flow]:
        self.opened.append(flow)
        return self.opens, flow

    def named(self, case: Flow, seen: Seen) -> Action:
        assert case in self.opened
        self.told.append(seen)
        return Action.ALLOW if self.hinted(case, seen) else Action.DENY

    def hinted(self, _case: Flow, seen: Seen) -> bool:
        return seen.name in self.good or seen == Seen(Spoken.OTHER, None)

    def again(self, _flow: Flow) -> Action:
        self.problems.append("again")
        return Action.DENY

    def unread(self, _case: Flow, problem: str) -> Action:
        self.problems.append(problem)
        return Action.DENY

    def era(self) -> object:
        return self.policy
