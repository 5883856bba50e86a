"""The action's own tests, by Node's test runner, with the Node that is locked beside the packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ACTION = Path(__file__).parents[2] / "action"
NODE = Path(sys.prefix) / "bin" / "node"


def test_the_action_s_own_tests_pass() -> None:
    command = [str(NODE), "--test", "--test-reporter=tap"]
    environ = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=ACTION, env=environ, capture_output=True, text=True, timeout=50, check=False)
    counts = dict(re.findall(r"^# (pass|fail) (\d+)$", done.stdout, re.MULTILINE))
    assert done.returncode == 0, done.stdout
    assert int(counts["pass"]) > 50
    assert counts["fail"] == "0"


def test_the_action_runs_with_nothing_but_node() -> None:
    """What is imported at run time is Node's own or stands beside it."""
    sources = [*ACTION.glob("*.js"), *ACTION.glob("lib/*.js")]
    imported = {
        name
        for source in sources
        for name in re.findall(r'^(?:import|}) .*from "([^"]+)"', source.read_text("utf-8"), re.MULTILINE)
    }
    foreign = {name for name in imported if not name.startswith(("node:", "./", "../"))}
    assert foreign == {"@eslint/js", "globals"}  # eslint.config.js's, which no job loads
    assert "node:fs" in imported
