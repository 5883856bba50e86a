"""Containers on the real kernel: processes in cgroups as engines make them, with namespaces and without."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bpf.cgroup import CgroupPaths
from bpf.compile import Extent
from bpf.loader import start_loading
from bpf.owners import Owners
from bpf.source import Description
from policy.values import Owner
from tests.bpf.conftest import PRELUDE, Bed, Speaker, own_cgroup

pytestmark = pytest.mark.kernel("root", "netns", "nft", "bpf", "cgroup2")

ID = "4f6d2a9c" * 8
SCOPE = f"docker-{ID}.scope"
LAYOUTS = {
    "docker": (SCOPE, ID),
    "docker, cgroupfs": (f"docker/{ID}", ID),
    "podman": (f"machine.slice/libpod-{ID}.scope/container", ID),
    "containerd": (f"system.slice/nerdctl-{ID}.scope", ID),
    "CRI-O": (f"kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope", ID),
    "kubernetes": (f"kubepods/burstable/pod1/{ID}", ID),
    "systemd-nspawn": ("machine.slice/systemd-nspawn@web\\x2d1.service/payload", "web-1"),
}
# A process of its own PID and mount namespaces, or without, connects.
CONNECT = """
s = tcp("4"); s.connect(("198.51.100.7", int(sys.argv[1]))); say_connected(s, 6); wait()
"""
NAMESPACES = {
    "both": ["unshare", "--fork", "--pid", "--mount", "--kill-child"],
    "mount": ["unshare", "--mount"],
    "none": [],
}


@contextmanager
def below(top: Path, path: str) -> Iterator[Path]:
    """A cgroup below another one; the folders between are made too, and all of them removed."""
    with ExitStack() as stack:
        here = top
        for name in path.split("/"):
            here = here / name
            here.mkdir()
            stack.callback(here.rmdir)
        yield here


def speak(bed: Bed, cgroup: Path, sink: int, namespaces: str) -> Speaker:
    python = [sys.executable, "-I", "-S", "-c", PRELUDE + CONNECT, str(sink)]
    return replace(bed, cgroup=cgroup).start([*NAMESPACES[namespaces], *python])


def ended(speaker: Speaker, bed: Bed, owners: Owners | None = None) -> Owner | None:
    """The owner of what it sent, found while it lives. It has left its cgroup then."""
    owner = (owners or bed.owners).of(speaker.flow())
    speaker.end()
    return owner


@pytest.mark.parametrize("engine", LAYOUTS)
def test_a_process_in_a_container(bed: Bed, sink: int, engine: str) -> None:
    path, container = LAYOUTS[engine]
    with below(bed.cgroup, path) as cgroup:
        owner = ended(speak(bed, cgroup, sink, "both"), bed)
    assert owner is not None
    assert (owner.container, owner.image) == (container, None)
    assert owner.complete


@pytest.mark.parametrize(("namespaces", "container"), [("mount", ID), ("none", None)])
def test_namespaces_have_their_say(bed: Bed, sink: int, namespaces: str, container: str | None) -> None:
    with below(bed.cgroup, SCOPE) as cgroup:
        owner = ended(speak(bed, cgroup, sink, namespaces), bed)
    assert owner is not None
    assert owner.container == container


def test_a_name_in_a_folder_of_a_user_s_is_no_container(bed: Bed, sink: int) -> None:
    """Who was given a cgroup (systemd's Delegate=) can make any name in it, and in a user namespace of one's own all
    namespaces there are."""
    with below(bed.cgroup, f"user@1000.service/{SCOPE}") as cgroup:
        os.chown(cgroup.parent, 1000, 1000)
        owner = ended(speak(bed, cgroup, sink, "both"), bed)
    assert owner is not None
    assert (owner.container, owner.image) == (None, None)


def test_namespaces_alone_are_neither_container_nor_host(bed: Bed, sink: int) -> None:
    owner = ended(speak(bed, bed.cgroup, sink, "both"), bed)
    assert owner is not None
    assert owner.container is None


def test_under_a_run_everybody_is_in_one_more_pid_namespace(bed: Bed, sink: int) -> None:
    inside = Owners(replace(bed.sources, depth=1))
    owner = ended(speak(bed, bed.cgroup, sink, "both"), bed, inside)
    assert owner is not None
    assert (owner.container, owner.image) == ("", "")


def test_an_image_may_become_known_later(bed: Bed, sink: int) -> None:
    said: dict[str, Description] = {}
    owners = Owners(replace(bed.sources, describe=lambda container: said.get(container.id)))
    with below(bed.cgroup, SCOPE) as cgroup:
        speaker = speak(bed, cgroup, sink, "both")
        flow = speaker.flow()
        before = owners.of(flow)
        said[ID] = Description("alpine:3", "web")
        after = owners.of(flow)
        speaker.end()
    assert before is not None
    assert before.image is None
    assert after == replace(before, image="alpine:3", container_name="web")


@pytest.mark.skipif(not Path("/sys/fs/cgroup/memory/cgroup.procs").exists(), reason="no cgroup v1 hierarchy here")
def test_a_container_of_a_cgroup_v1_hierarchy(bed: Bed, sink: int) -> None:
    """Docker on a hybrid machine, which leaves the processes in cgroup2's root."""
    mount = Path("/sys/fs/cgroup/memory")
    with (
        own_cgroup("legacy") as watched,
        below(mount, f"dnsfw-test-{os.getpid()}/docker/{ID}") as legacy,
        start_loading(watched, Extent(controller="memory")).finish(20) as attached,
        CgroupPaths(mount) as paths,
    ):
        owners = Owners(replace(bed.sources, attached=attached, legacy=paths))
        python = [sys.executable, "-I", "-S", "-c", PRELUDE + CONNECT, str(sink)]
        joining = ["sh", "-ec", f'echo $$ > {legacy}/cgroup.procs; exec "$@"', "sh", *NAMESPACES["both"], *python]
        owner = ended(replace(bed, cgroup=watched).start(joining), bed, owners)
    assert owner is not None
    assert owner.container == ID
