"""`dnsfw up` and Docker itself, where it is installed or was unpacked (`scripts/setup.sh docker`)."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dnsfw.playground import atlas
from dnsfw.playground.world import Playground, Setting
from tests import features
from tests.e2e.bridged import PROGRAM
from tests.e2e.guards import up

pytestmark = [pytest.mark.kernel, pytest.mark.kernel("docker")]

MINE, OTHER = "app.example/mine:1", "app.example/other:1"
KEYS = Path("/etc/docker")  # some Dockers write there, wherever the rest is
PYTHON = Path(sys.executable).resolve()
# What a program from this machine takes; the images have nothing in them.
LENT = ("/usr", "/lib", "/lib64", sys.base_prefix)
# It sees nothing of a Docker that this machine has, and the other way round.
DAEMON = """
for place in /run /opt /etc/docker; do mount -t tmpfs none "$place"; done
exec dockerd --data-root "$1/root" --exec-root "$1/exec" --pidfile "$1/pid" --host unix:///run/docker.sock \\
  --storage-driver vfs --exec-opt native.cgroupdriver=cgroupfs >"$1/log" 2>&1
"""
NETWORKS = {"bridge": atlas.EVIL_NAMESERVER.v4, "mine": "127.0.0.11", "host": atlas.EVIL_NAMESERVER.v4}


@dataclass(frozen=True, slots=True)
class Docker:
    laptop: Playground

    def __call__(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environ = os.environ | {"PATH": features.docker() or ""}
        process = self.laptop.popen(
            ["docker", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
        )
        with process:
            out, err = process.communicate(stdin, 30)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def python(self, image: str, network: str, *arguments: str) -> str:
        """What PROGRAM printed in a new container, or why it ended."""
        lent = [f"--volume={path}:{path}:ro" for path in LENT if Path(path).exists()]
        done = self("run", "--rm", f"--network={network}", *lent, image, str(PYTHON), "-c", PROGRAM, *arguments)
        return (done.stdout or done.stderr).decode().strip()


@contextmanager
def docker_on(laptop: Playground, directory: Path) -> Iterator[Docker]:
    """With two images."""
    made = [KEYS] if not KEYS.exists() else []
    KEYS.mkdir(exist_ok=True)
    before = set(Path("/sys/fs/cgroup").glob("**/docker"))
    environ = os.environ | {"PATH": features.docker() or ""}
    docker = Docker(laptop)
    with laptop.popen(["sh", "-ec", DAEMON, "sh", str(directory)], env=environ) as daemon:
        try:
            while docker("version").returncode:
                assert daemon.poll() is None, (directory / "log").read_text()
            for image in (MINE, OTHER):
                imported = docker("import", "-", image, stdin=empty())
                assert imported.returncode == 0, imported.stderr
            assert docker("network", "create", "mine").returncode == 0
            yield docker
        finally:
            daemon.terminate()
            daemon.wait()
            for left in (*made, *set(Path("/sys/fs/cgroup").glob("**/docker")) - before):
                left.rmdir()


def empty() -> bytes:
    """A file system with nothing in it."""
    octets = io.BytesIO()
    with tarfile.open(fileobj=octets, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))
    return octets.getvalue()


def test_containers_are_told_and_judged_on_every_network(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    daemon = shutil.which("dockerd", path=features.docker())
    policy = f"{atlas.ALLOWED_NAME} image=`app.example/mine:*`\ndns:{atlas.ALLOWED_NAME} exe={daemon} cgroup=@host\n"
    with (
        Playground(Setting()) as laptop,
        docker_on(laptop, tmp_path) as docker,
        up(laptop, tmp_path, "--journal", str(journal), policy=policy),
    ):
        seen = {
            (network, image, name): docker.python(image, network, server, name, "443")
            for network, server in NETWORKS.items()
            for image, name in ((MINE, atlas.ALLOWED_NAME), (MINE, atlas.EVIL_ZONE), (OTHER, atlas.ALLOWED_NAME))
        }
    for network in NETWORKS:
        # Docker's own name server asks for itself, whoever asked it; who connects is still the container.
        refused = "ConnectionRefusedError" if network == "mine" else "no such name"
        assert seen[network, MINE, atlas.ALLOWED_NAME] == atlas.ALLOWED.v4
        assert seen[network, MINE, atlas.EVIL_ZONE] == "no such name"
        assert seen[network, OTHER, atlas.ALLOWED_NAME] == refused
    owners = [json.loads(line)["owner"] for line in journal.read_text().splitlines()]
    assert {owner["image"] for owner in owners if owner and owner.get("container")} == {MINE, OTHER}
