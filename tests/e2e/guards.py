"""`dnsfw up`, as tests start it.

Law: starts, waits until it guards, ends; what is expected of it stands in the tests.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground

POLICY = f"{atlas.ALLOWED_NAME}\n"


@contextmanager
def up(
    host: Playground, folder: Path, *options: str, policy: str = POLICY, prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A guard in force that said nothing else; see `up_and_said`."""
    with up_and_said(host, folder, *options, policy=policy, prefix=prefix) as (process, said):
        assert said.count("\n") == 1, said
        yield process


@contextmanager
def up_and_said(
    host: Playground, folder: Path, *options: str, policy: str = POLICY, prefix: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A guard in force, by the text `policy` in a file in `folder`, and what it said until then. Ended by Ctrl-C's
    signal; its last words are left on its stderr."""
    file, said = folder / "policy", ""
    file.write_text(policy)
    command = [*prefix, *host.dnsfw("up", "--policy", str(file), *options)]
    with host.popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "guarding this host" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        try:
            yield process, said
        finally:
            process.send_signal(signal.SIGINT)
