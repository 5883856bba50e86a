"""`dnsfw up` and rules for an image: an engine tells what a container behind a bridge was started from."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dnsfw.machine.cgroups import find_root
from dnsfw.playground import atlas
from tests.dnsfw.engines import FakeEngine, playing
from tests.e2e.bridged import PROGRAM, Container, container_on_a_laptop
from tests.e2e.guards import up

pytestmark = pytest.mark.kernel

MINE, OTHER = "4f6d2a9c" * 8, "0123abcd" * 8
# The laptop has a /run of its own, with Docker's socket in it.
ENGINE_S_SOCKET = 'mount -t tmpfs run /run; touch /run/docker.sock; mount --bind "$1" /run/docker.sock'
# As runc starts a container's first process, cgroup and namespaces.
CONTAINED = 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Contained(Container):
    cgroup: Path

    def python(self, program: str, *arguments: str) -> str:
        apart = ["nsenter", "-t", str(self.pid), "-n", "unshare", "--fork", "--pid", "--mount", "--kill-child"]
        python = [sys.executable, "-c", program, *arguments]
        done = self.laptop.run(["sh", "-ec", CONTAINED, "sh", str(self.cgroup), *apart, *python])
        return (done.stdout or done.stderr).strip()


@contextmanager
def contained(container: Container, name: str) -> Iterator[Contained]:
    """The same network, in the cgroup of Docker's container `name`."""
    cgroup = find_root() / f"docker-{name}.scope"
    cgroup.mkdir()
    try:
        yield Contained(container.laptop, container.pid, cgroup)
    finally:
        cgroup.rmdir()


@contextmanager
def engine_of(container: Container, path: Path) -> Iterator[FakeEngine]:
    with playing(path) as engine:
        bound = container.laptop.run(["sh", "-ec", ENGINE_S_SOCKET, "sh", str(path)])
        assert bound.returncode == 0, bound.stderr
        yield engine


@pytest.mark.parametrize("heard", ["before", "when-it-speaks"])
def test_what_an_image_may_do_other_containers_may_not(tmp_path: Path, heard: str) -> None:
    """An engine may tell of a container as it is made, or only when it is asked: then the first question waits."""
    journal = tmp_path / "journal"
    asked = (PROGRAM, atlas.EVIL_NAMESERVER.v4, atlas.ALLOWED_NAME, "443")
    bare = f"import socket; socket.create_connection(({atlas.ALLOWED.v4!r}, 443), 5)"
    policy = f"{atlas.ALLOWED_NAME} image=`ghcr.example/app:*`\n"
    with (
        container_on_a_laptop() as container,
        engine_of(container, tmp_path / "engine.sock") as engine,
        contained(container, MINE) as mine,
        contained(container, OTHER) as other,
        up(container.laptop, tmp_path, "--journal", str(journal), policy=policy),
    ):
        assert engine.followed.wait(10)
        for name, image in ((OTHER, ("ghcr.example/other:1", "db")), (MINE, ("ghcr.example/app:1", "web"))):
            if heard == "before":
                engine.make(name, *image)
            else:
                engine.containers[name] = image
        assert mine.python(*asked) == atlas.ALLOWED.v4
        assert other.python(*asked) == "no such name"
        assert "ConnectionRefusedError" in other.python(bare)
        assert container.python(*asked) == "no such name"
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    owners = [record["owner"] for record in records if record.get("owner")]
    told = {(owner.get("container"), owner.get("image"), owner.get("container_name")) for owner in owners}
    assert {(MINE, "ghcr.example/app:1", "web"), (OTHER, "ghcr.example/other:1", "db")} <= told
