"""Which container a cgroup is: every engine's layout, and every way to fake one."""

from __future__ import annotations

import pytest

from bpf.container import NO_CONTAINER, CgroupPlace, Container, Seclusion, container_of

ID = "4f6d2a9c" * 8
INNER = "0123abcd" * 8
APART = Seclusion(pid=True, mount=True)
AT_HOME = Seclusion(pid=False, mount=False)

# Engine, cgroup driver and version of cgroups, where they make a difference.
LAYOUTS = {
    "docker, systemd": (f"/system.slice/docker-{ID}.scope", Container(ID, "docker")),
    "docker, cgroupfs": (f"/docker/{ID}", Container(ID, "docker")),
    "docker, with --cgroup-parent": (f"/actions_job/{ID}", Container(ID, "")),
    "docker, its process moved further down": (f"/system.slice/docker-{ID}.scope/init", Container(ID, "docker")),
    "docker in docker": (f"/docker/{ID}/docker/{INNER}", Container(INNER, "docker")),
    "containerd, nerdctl": (f"/system.slice/nerdctl-{ID}.scope", Container(ID, "nerdctl")),
    "containerd, cgroupfs": (f"/default/{ID}", Container(ID, "")),
    "containerd, an id of one's own": ("/default/web.1", Container("web.1", "containerd")),
    "containerd, its process moved further down": ("/default/web.1/init", Container("web.1", "containerd")),
    "containerd, another namespace": (f"/apps/{ID}", Container(ID, "")),
    "podman, systemd": (f"/machine.slice/libpod-{ID}.scope/container", Container(ID, "libpod")),
    "podman, cgroupfs": (f"/libpod_parent/libpod-{ID}", Container(ID, "libpod")),
    "CRI-O": (
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/crio-{ID}.scope",
        Container(ID, "crio"),
    ),
    "CRI-O, cgroupfs": (f"/kubepods/burstable/pod0f0e-11/crio-{ID}", Container(ID, "crio")),
    "kubernetes, containerd, systemd": (
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-{ID}.scope",
        Container(ID, "cri-containerd"),
    ),
    "kubernetes, cgroupfs": (f"/kubepods/burstable/pod0f0e-11/{ID}", Container(ID, "")),
    "kind: a node in docker, a pod in the node": (
        f"/docker/{ID}/kubelet/kubepods/besteffort/pod1/{INNER}",
        Container(INNER, ""),
    ),
    "podman, a pod": (
        f"/machine.slice/machine-libpod_pod_{INNER}.slice/libpod-{ID}.scope/container",
        Container(ID, "libpod"),
    ),
    "systemd-nspawn, service": ("/machine.slice/systemd-nspawn@web\\x2d1.service/payload", Container("web-1", "")),
    "systemd-nspawn, scope": ("/machine.slice/machine-debian.scope", Container("debian", "")),
    "LXC and Incus": ("/lxc.payload.web/system.slice/ssh.service", Container("web", "")),
    "LXC, old": ("/lxc/web", Container("web", "")),
}
NO_LAYOUTS = {
    "the root": "/",
    "a service": "/system.slice/ssh.service",
    "containerd's default namespace itself": "/default",
    "one that is called so further down": "/system.slice/default/web",
    "a session": "/user.slice/user-1000.slice/session-2.scope",
    "docker itself": "/system.slice/docker.service",
    "podman's monitor": f"/machine.slice/libpod-conmon-{ID}.scope",
    "CRI-O's monitor": f"/kubepods.slice/crio-conmon-{ID}.scope",
    "a name that only contains one": f"/system.slice/my-docker-{ID}.scope",
    "an id that is too long": f"/docker/{ID}0",
    "an id of other letters": f"/docker/{ID.replace('a', 'z')}",
}


def place(path: str, roots: int | None = None) -> CgroupPlace:
    """All of whose components root made, unless said."""
    return CgroupPlace(path, path.strip("/").count("/") + 1 if roots is None else roots)


@pytest.mark.parametrize("case", LAYOUTS)
def test_every_engine_s_layout(case: str) -> None:
    path, container = LAYOUTS[case]
    assert container_of((place(path),), APART) == container


@pytest.mark.parametrize("case", LAYOUTS)
def test_on_a_hybrid_machine_the_cgroup_v1_hierarchy_tells(case: str) -> None:
    path, container = LAYOUTS[case]
    assert container_of((place("/"), place(path)), APART) == container


@pytest.mark.parametrize("case", NO_LAYOUTS)
def test_what_is_no_container(case: str) -> None:
    assert container_of((place(NO_LAYOUTS[case]),), AT_HOME) == NO_CONTAINER


MINE = f"/user.slice/user-1000.slice/user@1000.service/docker-{ID}.scope"
FAKES = {
    "a name in a folder that a user was given": (place(MINE, roots=3), APART),
    "a root-made name with the machine's own namespaces": (place(f"/docker/{ID}"), AT_HOME),
    "a PID namespace of its own in no container's cgroup": (place("/user.slice"), Seclusion(pid=True, mount=True)),
    "namespaces that nobody could read": (place("/user.slice"), Seclusion(pid=None, mount=None)),
    "a cgroup that is gone": (place("", 0), AT_HOME),
}


@pytest.mark.parametrize("case", FAKES)
def test_what_can_t_be_told_is_neither_container_nor_host(case: str) -> None:
    faked, seclusion = FAKES[case]
    assert container_of((faked,), seclusion) is None


def test_no_cgroup_at_all_tells_nothing() -> None:
    assert container_of((), AT_HOME) is None


def test_one_hierarchy_that_can_t_be_seen_makes_the_other_worthless() -> None:
    assert container_of((place("/"), place("", 0)), AT_HOME) is None


@pytest.mark.parametrize(("seclusion"), [Seclusion(pid=True, mount=False), Seclusion(pid=False, mount=True)])
def test_one_namespace_of_its_own_is_enough(seclusion: Seclusion) -> None:
    """`docker run --pid=host` keeps a mount namespace of its own."""
    assert container_of((place(f"/docker/{ID}"),), seclusion) == Container(ID, "docker")


def test_a_mount_namespace_alone_makes_no_container() -> None:
    """systemd gives many a service one (PrivateTmp=)."""
    assert container_of((place("/system.slice/ssh.service"),), Seclusion(pid=False, mount=True)) == NO_CONTAINER
