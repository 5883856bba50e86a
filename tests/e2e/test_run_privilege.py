"""What dnsfw's own processes may do while a command is guarded."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsfw.machine.privilege import Capability
from dnsfw.place import ENGINE_USER
from dnsfw.playground.world import Playground

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def family(world: Playground) -> Iterator[dict[str, Path]]:
    """/proc directories of a live run's "engine" and "init"."""
    run = world.popen(
        world.dnsfw("run", "--", "sh", "-c", "echo started; read line"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == "started\n"
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        by_role = {"init" if _field(Path("/proc", pid), "Uid")[0] == 0 else "engine": pid for pid in children}
        yield {role: Path("/proc", pid) for role, pid in by_role.items()}
        run.communicate("done\n")


def _field(process: Path, name: str) -> list[int]:
    found = re.search(rf"^{name}:\t(.*)$", (process / "status").read_text(), re.MULTILINE)
    assert found
    return [int(word, 16 if name.startswith("Cap") else 10) for word in found[1].split()]


def _mask(*capabilities: Capability) -> list[int]:
    return [sum(1 << capability for capability in capabilities)]


def test_the_engine_is_its_own_user_in_every_thread(family: dict[str, Path]) -> None:
    """A1: the resolver and the packet parser don't run as root."""
    for thread in (family["engine"] / "task").iterdir():
        assert _field(thread, "Uid") == [ENGINE_USER.uid] * 4
        assert _field(thread, "Gid") == [ENGINE_USER.gid] * 4
        assert _field(thread, "Groups") == []


@pytest.mark.parametrize("which", ["CapEff", "CapPrm", "CapBnd"])
def test_the_engine_keeps_three_capabilities(family: dict[str, Path], which: str) -> None:
    kept = _mask(Capability.NET_ADMIN, Capability.DAC_READ_SEARCH, Capability.BPF)
    assert _field(family["engine"], which) == kept


@pytest.mark.parametrize("which", ["CapEff", "CapPrm", "CapBnd"])
def test_init_can_signal_and_nothing_else(family: dict[str, Path], which: str) -> None:
    assert _field(family["init"], which) == _mask(Capability.KILL)


@pytest.mark.parametrize("role", ["engine", "init"])
def test_neither_can_gain_or_hand_down_any(family: dict[str, Path], role: str) -> None:
    assert _field(family[role], "NoNewPrivs") == [1]
    assert _field(family[role], "CapInh") == [0]
    assert _field(family[role], "CapAmb") == [0]
