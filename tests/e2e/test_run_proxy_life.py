"""The proxy's process under `dnsfw run`: what it is left with, its death and return, and that nobody waits for it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground
from tests.e2e.inside import Inside, Laptop

pytestmark = pytest.mark.kernel

SITE, OTHER = atlas.ALLOWED_NAME, atlas.SHARED_NAME
POLICY = f"https://{SITE}/open/*\n{OTHER}\n"
OPEN, SHUT = f"https://{SITE}/open/x", f"https://{SITE}/shut/x"
BACK_WITHIN = 3.0


@pytest.fixture(scope="module")
def laptop(world: Playground, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    return Laptop(world, tmp_path_factory.mktemp("life"))


@pytest.fixture(scope="module")
def inside(laptop: Laptop) -> Iterator[Inside]:
    """One guard for the tests that leave it as it was."""
    with laptop.agent(POLICY) as inside:
        yield inside


def keeper(inside: Inside) -> int:
    return inside.children()[1]


def proxy(inside: Inside, but: int = 0) -> int:
    """The proxy of the day, waiting for one that isn't `but`."""
    pid = keeper(inside)
    deadline = time.monotonic() + BACK_WITHIN
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children and int(children[0]) != but:
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError(f"no proxy within {BACK_WITHIN:g} s")


def kill(pid: int) -> None:
    """To its very end."""
    handle = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([handle], [], [], 5)[0]
    os.close(handle)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_what_the_proxy_and_its_keeper_are_left_with(inside: Inside) -> None:
    assert inside.fetch(OPEN)["outcome"] == "200"  # it has done all that a proxy does
    for pid in (keeper(inside), proxy(inside)):
        said = status(pid)
        assert said["Uid"].split() == said["Gid"].split() == ["61854"] * 4
        assert said["Groups"] == ""
        assert {said[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (said["NoNewPrivs"], said["Threads"]) == ("1", "1")
        assert Path(f"/proc/{pid}/mem").stat().st_uid == 0  # not dumpable: nobody of its kind reads its memory
        assert limits(pid)["Max file size"] == limits(pid)["Max core file size"] == "0"
    assert status(proxy(inside))["Seccomp"] == "2"


def limits(pid: int) -> dict[str, str]:
    found = re.findall(r"^(.*?) {2,}(\S+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
    return dict(found)


def test_its_world_is_python_s_library_and_the_roots(inside: Inside) -> None:
    """No /proc, no /etc, no home; nothing that could be written."""
    pid = proxy(inside)
    root = f"/proc/{pid}/root"
    libraries, outside = [], []
    for folder, folders, files in os.walk(root):
        found = [name for name in folders if folder.endswith("/lib") and name.startswith("python3")]
        libraries += [f"{folder}/{name}".removeprefix(root) for name in found]
        folders[:] = [name for name in folders if name not in found]
        outside += [f"{folder}/{name}".removeprefix(root) for name in files]
    assert libraries
    assert outside == ["/roots.pem"]
    mounts = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]
    visible = {"/", *libraries}
    options = {target: flags.split(",") for _, target, _, flags, *_ in mounts if target in visible}
    assert set(options) == visible
    assert all("ro" in flags for flags in options.values())


def test_it_has_nothing_open_but_sockets(inside: Inside) -> None:
    inside.fetch(OPEN)
    pid = proxy(inside)
    held = {str(path.readlink()).split(":")[0] for path in Path(f"/proc/{pid}/fd").iterdir() if path.name != "2"}
    assert held <= {"socket", "anon_inode", "/dev/null"}


def proxys_turns(journal: Path) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in journal.read_text().splitlines()]
    return [line for line in told if line.get("what") == "proxy"]


def returns(inside: Inside, within: float) -> bool:
    began = time.monotonic()
    while inside.fetch(OPEN)["outcome"] != "200":
        if time.monotonic() - began > within:
            return False
    return True


def proxy_state(laptop: Laptop) -> dict[str, Any]:
    """What `dnsfw status` says of the proxy of the run with `laptop`'s policy."""
    done = laptop.world.run(laptop.world.dnsfw("status", "--json"))
    reports = [one for one in json.loads(done.stdout) if one["proxy"] and one["journal"]["file"]]
    assert len(reports) == 1, done
    found = reports[0]["proxy"]
    assert isinstance(found, dict)
    return found


def test_it_dies_alone_and_comes_back(laptop: Laptop) -> None:
    """The keeper is held, so that there is time to look."""
    journal = laptop.directory / "journal"
    with laptop.agent(POLICY, "--journal", str(journal)) as inside:
        assert inside.fetch(OPEN)["outcome"] == "200"
        dead = proxy(inside)
        with stopped(keeper(inside)):
            os.kill(dead, signal.SIGKILL)
            while inside.fetch(OPEN)["outcome"] != "ECONNREFUSED":
                pass
            assert inside.fetch(f"https://{OTHER}/")["outcome"] == "200"
            assert proxy_state(laptop)["serving"] is False
        assert returns(inside, within=BACK_WITHIN)
        now = proxy_state(laptop)
        assert (now["hosts"], now["serving"], now["deaths"]) == ([SITE], True, 1)
        assert inside.fetch(SHUT)["outcome"] == "403"
        _, errors = inside.leave()
    assert "the proxy that does that is not there just now" in errors
    assert "the proxy died once, of signal 9 (SIGKILL)" in errors
    assert [turn["life"] for turn in proxys_turns(journal)] == ["started", "died", "restarted"]
    told = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["decision"] for line in told if line.get("reason") == "proxy"][:1] == ["deny"]


def test_ten_deaths_and_it_is_still_back_in_time(inside: Inside) -> None:
    assert inside.fetch(OPEN)["outcome"] == "200"
    pid = 0
    for _ in range(10):
        pid = proxy(inside, but=pid)
        kill(pid)
    assert returns(inside, within=BACK_WITHIN)
    assert inside.fetch(f"https://{OTHER}/")["outcome"] == "200"


def test_another_keeper_takes_the_place_of_one_that_died(laptop: Laptop) -> None:
    """With another authority: whoever looks for it then finds it where the first one was."""
    journal = laptop.directory / "another-keepers-journal"
    with laptop.agent(POLICY, "--journal", str(journal)) as inside:
        kill(keeper(inside))
        while inside.fetch(OPEN)["outcome"] != "ECONNREFUSED":
            pass
        assert inside.fetch(f"https://{OTHER}/")["outcome"] == "200"
        assert returns(inside, within=10)
        assert inside.leave()[1].startswith("dnsfw: the proxy's keeper died (signal 9 (SIGKILL))")
    told = proxys_turns(journal)
    assert [turn["life"] for turn in told] == ["started", "died", "started"]
    assert told[1]["reason"] == "signal 9 (SIGKILL), with its keeper"


def test_the_end_waits_for_no_proxy(laptop: Laptop) -> None:
    """R9: one that does nothing any more, with a client that hangs on it."""
    with laptop.agent(POLICY) as inside:
        address = inside.resolve(SITE)[0]
        assert inside.tcp(address, 443, keep="hanging")["outcome"] == "open"
        one, other = keeper(inside), proxy(inside)
        handles = [os.pidfd_open(pid) for pid in (one, other)]
        os.kill(other, signal.SIGSTOP)
        os.kill(one, signal.SIGSTOP)
        began = time.monotonic()
        assert inside.leave()[0] == 0
        assert time.monotonic() - began < 2.0
    for handle in handles:
        assert select.select([handle], [], [], 5)[0], "it is still there"
        os.close(handle)


def test_it_does_not_outlive_a_supervisor_that_was_killed(laptop: Laptop) -> None:
    with laptop.agent(POLICY) as inside:
        handles = [os.pidfd_open(pid) for pid in (keeper(inside), proxy(inside))]
        os.kill(inside.pid, signal.SIGKILL)
        for handle in handles:
            assert select.select([handle], [], [], 5)[0], "it is still there"
            os.close(handle)
    assert laptop.run(f"{OTHER}\n", ["true"]).returncode == 0  # sweeps


def test_an_engine_that_dies_takes_up_the_conversation_when_it_is_back(inside: Inside) -> None:
    assert inside.fetch(OPEN)["outcome"] == "200"
    kill(inside.engine)
    assert returns(inside, within=10)
