"""Memory under churn: the measurement of `bench.dns_memory`, with tables and names at a twenty-fifth of their size."""

from __future__ import annotations

import subprocess
import sys


def test_memory_is_flat_after_the_first_pass_and_live_bindings_stay() -> None:
    command = [sys.executable, "-m", "bench.dns_memory", "40000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("live binding kept") == 4
