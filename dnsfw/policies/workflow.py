"""The policies in a GitHub workflow or composite action: the `policy:` input of the steps that use dnsfw.

Law: the only file that knows the YAML library. A policy is handed out with empty lines before it and its indentation
left in place, so that whatever is said about its lines and columns is true of the workflow file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

SUFFIXES = frozenset({".yml", ".yaml"})
_LIMIT = 1 << 20  # characters; PyYAML reads about 100,000 a second
_OURS = re.compile(r"\./|(?:[^@]*/)?dnsfw(?:[/@]|$)")  # the repository of that name, or an action in this one


class WorkflowError(Exception):
    """Not a workflow that can be read. `line` and `column` count from 1."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(reason)
        self.line, self.column, self.reason = line, column, reason


def policies_in(content: bytes) -> list[str]:
    """Each policy in the file as text whose lines are the file's lines. Raises WorkflowError."""
    if len(content) > _LIMIT:
        raise WorkflowError(1, 1, f"a workflow has at most {_LIMIT} bytes")
    try:
        text = content.decode("utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise WorkflowError(content.count(b"\n", 0, error.start) + 1, 1, "not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise WorkflowError(line, column, f"not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise WorkflowError(1, 1, f"not YAML: {error}".partition("\n")[0]) from error
    except RecursionError:
        raise WorkflowError(1, 1, "YAML nested too deeply") from None
    lines = text.split("\n")
    return [_in_place(node, lines) for node in _inputs(root)]


def _inputs(root: Node | None) -> Iterator[ScalarNode]:
    """The `policy:` values of our steps. An alias is the node that it stands for, and is looked at once."""
    jobs = [job for _, job in _pairs(_get(root, "jobs"))]
    seen: set[int] = set()
    for step in chain.from_iterable(_steps(job, seen) for job in [*jobs, _get(root, "runs")]):
        uses, given = _get(step, "uses"), _get(_get(step, "with"), "policy")
        if isinstance(uses, ScalarNode) and _OURS.match(uses.value) and isinstance(given, ScalarNode):
            yield given


def _steps(job: Node | None, seen: set[int]) -> Iterator[Node]:
    steps = _get(job, "steps")
    if isinstance(steps, SequenceNode) and id(steps) not in seen:
        seen.add(id(steps))
        yield from steps.value


def _pairs(node: Node | None) -> list[tuple[Node, Node]]:
    return node.value if isinstance(node, MappingNode) else []


def _get(node: Node | None, key: str) -> Node | None:
    return next((value for name, value in _pairs(node) if isinstance(name, ScalarNode) and name.value == key), None)


def _in_place(node: ScalarNode, lines: list[str]) -> str:
    """The policy where it stands. Of a folded or quoted value only the first line has a place of its own."""
    row, column = node.start_mark.line, node.start_mark.column
    if node.style == "|":
        wanted = node.value.rstrip("\n").split("\n")
        block = lines[row + 1 : row + 1 + len(wanted)]
        if [line.strip() for line in block] == [line.strip() for line in wanted]:
            return "\n" * (row + 1) + "\n".join(block)
    indent = column + (node.style in {"'", '"'})
    return "\n" * row + " " * indent + str(node.value)
