"""Which container a process is in, told by its cgroup and its namespaces.

Law: pure. A cgroup's name alone is evidence of nothing: whoever was given a cgroup may make others below it, of any
name. So a name counts only where root alone could have made it, and only with namespaces that are not the machine's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# systemd's cgroup driver: one scope for each container, named after the engine (conmon's own scopes are no containers).
_SCOPE = re.compile(r"(docker|libpod|cri-containerd|containerd|nerdctl|crio|buildkit)-([0-9a-f]{12,64})\.scope")
# The cgroupfs driver, and Podman's and Kubernetes' own layouts: the bare id, below whatever parent was asked for.
_DIRECTORY = re.compile(r"(?:(libpod|crio)-)?([0-9a-f]{64})")
# systemd-nspawn(1): a service of its template, or a scope that machined(8) registered.
_MACHINE = re.compile(r"()(?:systemd-nspawn@(?P<unit>.+)\.service|machine-(?P<scope>.+)\.scope)")
_LXC = re.compile(r"()lxc\.payload\.(.+)")
_PARENTS = {"lxc": "", "lxc.payload": "", "docker": "docker", "libpod_parent": "libpod"}
# containerd alone (ctr, nerdctl with the cgroupfs driver): its default namespace, and an id that anybody chose.
_OF_CONTAINERD = re.compile(r"default/([A-Za-z0-9][A-Za-z0-9_.-]{0,75})(?:/.*)?")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class CgroupPlace:
    """A cgroup: its path as /proc/PID/cgroup has it, and how many of its components, from the root, nobody but root can
    have made. Of no path, nothing is known."""

    path: str
    roots: int


@dataclass(frozen=True, slots=True)
class Container:
    """A container by its engine's id, and by its engine where the cgroup names that: "docker", "libpod", "crio", …"""

    id: str
    engine: str


@dataclass(frozen=True, slots=True)
class Seclusion:
    """Whether a process lives in a PID or a mount namespace that is not this machine's; None: not known."""

    pid: bool | None
    mount: bool | None


NO_CONTAINER = Container("", "")


def container_of(places: tuple[CgroupPlace, ...], seclusion: Seclusion) -> Container | None:
    """The container of a process in these cgroups, one of each hierarchy; NO_CONTAINER if it is in none; None if that
    can't be told: a name that a user may have made, an engine's cgroup without any namespace of its own, or a PID
    namespace of its own in no cgroup that we recognise."""
    if not places or not all(place.path for place in places):
        return None
    named = [(place, *found) for place in places if (found := _innermost(place.path))]
    if named:
        place, depth, container = named[0]
        return container if depth < place.roots and (seclusion.pid or seclusion.mount) else None
    return NO_CONTAINER if seclusion.pid is False else None


def _innermost(path: str) -> tuple[int, Container] | None:
    """The last component of a cgroup's path that is a container's, and which it is, counted from 0."""
    components = path.strip("/").split("/")
    for depth in range(len(components) - 1, -1, -1):
        if container := _container(components[depth], components[depth - 1] if depth else ""):
            return depth, container
    match = _OF_CONTAINERD.fullmatch("/".join(components))
    return (1, Container(match[1], "containerd")) if match else None


def _container(name: str, parent: str) -> Container | None:
    for form in (_SCOPE, _DIRECTORY, _LXC):
        if match := form.fullmatch(name):
            return Container(match[2], match[1] or _PARENTS.get(parent, ""))
    if match := _MACHINE.fullmatch(name):
        return Container(_unescaped(match["unit"] or match["scope"]), "")
    return Container(name, "") if parent in {"lxc", "lxc.payload"} else None


def _unescaped(name: str) -> str:
    """systemd.unit(5), "String Escaping for Inclusion in Unit Names"."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), name)
