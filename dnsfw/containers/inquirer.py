"""The process that asks container engines.

Law: everything that it does is done here, between a channel and the engines' sockets. An engine's socket is worth as
much as root, so no process that parses packets may reach it: this one has a single capability and talks to nobody else.

It learns of containers as they are made, before their first packet; and is asked about those it has missed.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dnsfw.containers.api import EngineSocket
from dnsfw.containers.containerd import Containerd
from dnsfw.containers.engine import Engine, Named, UnansweredError
from dnsfw.containers.talk import LARGEST, Answer, Question
from dnsfw.machine.privilege import Capability, User, become, die_with_parent, undumpable

ENGINES: tuple[Engine, ...] = (
    EngineSocket("docker", Path("/run/docker.sock")),
    EngineSocket("libpod", Path("/run/podman/podman.sock")),
    EngineSocket("crio", Path("/run/crio/crio.sock")),
    Containerd(Path("/run/containerd/containerd.sock")),
    Containerd(Path("/run/k3s/containerd/containerd.sock")),
)
_PAUSES = (0.0, 1.0, 10.0)  # seconds before an attempt to follow an engine


def run(channel: socket.socket, user: User, engines: Sequence[Engine]) -> int:
    """Until the other end hangs up. `user` is whom to become."""
    become(user, keep=[Capability.DAC_OVERRIDE])  # engines' sockets are root's
    die_with_parent()
    undumpable()
    return serve(channel, engines)


def serve(channel: socket.socket, engines: Sequence[Engine]) -> int:
    """Tell of every container that is made; answer what is asked."""
    over = threading.Event()
    for engine in engines:
        if engine.streams:
            threading.Thread(target=_follow, args=(channel, engine, over), daemon=True).start()
    while raw := channel.recv(LARGEST):
        question = msgspec.json.decode(raw, type=Question)
        for engine in engines:
            if question.engine in {"", *engine.kinds} and _tell_of(channel, engine, question.id):
                break
    over.set()
    return 0


def _follow(channel: socket.socket, engine: Engine, over: threading.Event) -> None:
    """An engine may be started, or started again, at any time."""
    attempts = 0
    while not over.wait(_PAUSES[min(attempts, len(_PAUSES) - 1)]):
        attempts += 1
        try:
            for named in engine.made():
                attempts = 0
                _tell(channel, named)
        except (UnansweredError, OSError):
            continue


def _tell_of(channel: socket.socket, engine: Engine, container: str) -> bool:
    try:
        _tell(channel, engine.inspect(container))
    except UnansweredError:
        return False
    return True


def _tell(channel: socket.socket, named: Named) -> None:
    message = msgspec.json.encode(Answer(named.id, named.image, named.name))
    if len(message) <= LARGEST:
        channel.send(message)
