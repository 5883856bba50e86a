"""Loading: whole or not at all, with the reason in words, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bpf import records
from bpf.compile import HOOKS, USER_HOOKS, Extent, Toolchain
from bpf.errors import BpfError
from bpf.loader import start_loading
from bpf.syscall import programs_at
from tests.bpf.conftest import JUDGED, network_namespace, own_cgroup

pytestmark = pytest.mark.kernel("root", "netns", "nft", "bpf", "cgroup2")

ALL = HOOKS + USER_HOOKS


@pytest.fixture
def cgroup() -> Iterator[Path]:
    with own_cgroup("loader") as cgroup:
        yield cgroup


def attached_to(cgroup: Path) -> list[int]:
    """How many programs each hook has there."""
    directory = os.open(cgroup, os.O_RDONLY)
    try:
        return [len(programs_at(directory, hook.attach_type)) for hook in ALL]
    finally:
        os.close(directory)


def test_everything_is_attached_until_it_is_closed(cgroup: Path) -> None:
    attached = start_loading(cgroup).finish(20)
    assert attached_to(cgroup) == [1] * len(ALL)
    attached.close()
    attached.close()  # twice does no harm
    assert attached_to(cgroup) == [0] * len(ALL)


def test_where_senders_are_seen_users_are_not_watched(cgroup: Path) -> None:
    """The kernel has one program at each priority: that the second is there tells that the first is gone."""
    with network_namespace("") as netns:
        judged = replace(JUDGED, priorities=JUDGED.priorities[:1], network=netns)
        for _ in range(2):
            with start_loading(cgroup, Extent(judged=judged)).finish(20) as attached:
                assert attached.sees_senders
                assert attached_to(cgroup) == [1] * len(HOOKS) + [0] * len(USER_HOOKS)
    assert attached_to(cgroup) == [0] * len(ALL)


def test_two_guards_coexist(cgroup: Path) -> None:
    """One on a cgroup and one on a cgroup below it, or on the same: as `run` under `up`."""
    with start_loading(cgroup).finish(20), start_loading(cgroup).finish(20):
        assert attached_to(cgroup) == [2] * len(ALL)
    assert attached_to(cgroup) == [0] * len(ALL)


def test_the_callers_folder_may_be_gone(cgroup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    start_loading(cgroup).finish(20).close()


LOAD = """
import sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path; from bpf.loader import start_loading
start_loading(Path(sys.argv[1])).finish(10).close()
"""


def test_nobody_reads_the_kernel_s_symbols(cgroup: Path, tmp_path: Path) -> None:
    """That takes 0.1 s of a start. In their place is a pipe that nobody writes to: who opens it waits for ever."""
    os.mkfifo(tmp_path / "pipe")
    hidden = 'mount --bind "$0" /proc/kallsyms; exec "$@"'
    load = [sys.executable, "-c", LOAD, str(cgroup), str(Path(__file__).parents[2])]
    private = ["unshare", "--mount", "sh", "-ec", hidden, str(tmp_path / "pipe"), *load]
    done = subprocess.run(private, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_killed_holder_leaves_nothing(cgroup: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]);"
        "from pathlib import Path; from bpf.loader import start_loading;"
        "attached = start_loading(Path(sys.argv[1])).finish(20); print('up', flush=True); sys.stdin.read()"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(cgroup), str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        assert attached_to(cgroup) == [1] * len(ALL)
        holder.kill()
        holder.wait()
        assert attached_to(cgroup) == [0] * len(ALL)


def test_a_load_that_is_given_up_leaves_nothing(cgroup: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with closing(start_loading(cgroup)) as loading, pytest.raises(BpfError, match="not compiled within 0 s"):
        loading.finish(0)
    assert attached_to(cgroup) == [0] * len(ALL)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


SHIFTED = replace(records.OWNER, fields=(("cookie", "Q"), *(f for f in records.OWNER.fields if f[0] != "cookie")))
SHORTER = replace(records.PROGRAM, fields=records.PROGRAM.fields[:-1])


@pytest.mark.parametrize(
    ("toolchain", "complaint"),
    [
        (Toolchain(layouts=(SHIFTED,)), "owner.cookie: bpf/records.py says offset 0"),
        (Toolchain(layouts=(SHORTER,)), "size of program"),
        (Toolchain(bcc=Path("/nonexistent")), "apt-get install python3-bpfcc"),
        (Toolchain(btf=Path("/nonexistent")), "CONFIG_DEBUG_INFO_BTF"),
        (Toolchain(btf=Path("/dev/null")), "BTF is cut short"),
    ],
    ids=["fields swapped", "size", "no bcc", "no BTF", "empty BTF"],
)
def test_a_fault_is_one_sentence_and_attaches_nothing(cgroup: Path, toolchain: Toolchain, complaint: str) -> None:
    with pytest.raises(BpfError) as failure:
        start_loading(cgroup, toolchain=toolchain).finish(20)
    assert complaint in str(failure.value)
    assert "\n" not in str(failure.value)
    assert attached_to(cgroup) == [0] * len(ALL)


def test_only_a_cgroup2_directory_will_do(tmp_path: Path, cgroup: Path) -> None:
    with pytest.raises(BpfError, match="is it on cgroup2"):
        start_loading(tmp_path).finish(20)
    with pytest.raises(BpfError, match="No such file"):
        start_loading(cgroup / "missing").finish(20)
