"""Container engines: what is asked, believed, and never waited for."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

from bpf.container import Container
from bpf.source import Description
from dnsfw.containers.api import EngineSocket
from dnsfw.containers.containerd import Containerd
from dnsfw.containers.engine import Engine, Named, UnansweredError
from dnsfw.containers.known import Containers, Inquiry
from dnsfw.containers.talk import Answer
from dnsfw.machine.privilege import Capability, User
from policy.values import Owner
from tests.dnsfw.engines import FakeEngine, Talk, playing, talking

ID = "4f6d2a9c" * 8
OTHER = "0123abcd" * 8


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[FakeEngine, Path]]:
    path = tmp_path / "engine.sock"
    with playing(path) as fake:
        yield fake, path


def socket_of(path: Path, kind: str = "docker", owner: int | None = None) -> EngineSocket:
    return EngineSocket(kind, path, os.getuid() if owner is None else owner)


@pytest.mark.parametrize("kind", ["docker", "libpod", "crio"])
def test_image_and_name_of_a_container(engine: tuple[FakeEngine, Path], kind: str) -> None:
    fake, path = engine
    fake.containers[ID] = "ghcr.io/me/app:1", "web"
    assert socket_of(path, kind).inspect(ID) == Named(ID, "ghcr.io/me/app:1", "web")


ODD = {
    "no JSON": b"<html>",
    "no object": b"[]",
    "another type": b'{"Id": 5, "Config": {"Image": "x"}, "Name": "/x"}',
    "no image": b'{"Id": "x", "Config": {}, "Name": "/x"}',
    "an empty image": b'{"Id": "x", "Config": {"Image": ""}, "Name": "/x"}',
    "too much": b'"' + b"x" * (5 << 20) + b'"',
    "nested too deep": b"[" * 200_000,
}


@pytest.mark.parametrize("case", ODD)
def test_an_answer_that_makes_no_sense_is_none(engine: tuple[FakeEngine, Path], case: str) -> None:
    fake, path = engine
    fake.raw[f"/containers/{ID}/json"] = ODD[case]
    with pytest.raises(UnansweredError):
        socket_of(path).inspect(ID)


def test_an_unknown_container_is_none(engine: tuple[FakeEngine, Path]) -> None:
    with pytest.raises(UnansweredError):
        socket_of(engine[1]).inspect(ID)


@pytest.mark.parametrize("name", ["web", "../images/json", "a" * 65, ""])
def test_only_an_id_is_asked_for(engine: tuple[FakeEngine, Path], name: str) -> None:
    fake, path = engine
    with pytest.raises(UnansweredError):
        socket_of(path).inspect(name)
    assert fake.asked == []


def test_an_engine_that_is_not_root_s_is_not_believed(engine: tuple[FakeEngine, Path]) -> None:
    fake, path = engine
    fake.containers[ID] = "trusted", "web"
    with pytest.raises(UnansweredError, match="not root's"):
        socket_of(path, owner=os.getuid() + 1).inspect(ID)
    assert fake.asked == []


ENGINES: dict[str, Callable[[Path, int, float], Engine]] = {"HTTP": partial(EngineSocket, "docker"), "gRPC": Containerd}


@pytest.mark.parametrize("kind", ENGINES)
def test_a_silent_one_is_not_waited_for_long(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(UnansweredError, match="timed out"):
            ENGINES[kind](path, os.getuid(), 0.05).inspect(ID)


def test_no_engine_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(UnansweredError):
        socket_of(tmp_path / "missing").inspect(ID)


@pytest.fixture
def talk(engine: tuple[FakeEngine, Path]) -> Iterator[Talk]:
    with talking([socket_of(engine[1])]) as conversation:
        yield conversation


def test_a_container_is_known_before_it_runs(engine: tuple[FakeEngine, Path], talk: Talk) -> None:
    fake, _ = engine
    assert fake.followed.wait(10)
    fake.make(ID, "alpine:3", "web")
    talk.heard()
    assert talk.containers.describe(Container(ID, "docker")) == Description("alpine:3", "web")
    assert f"/containers/{ID}/json" not in fake.asked


def test_an_engine_s_other_words_do_no_harm(engine: tuple[FakeEngine, Path], talk: Talk) -> None:
    fake, _ = engine
    for line in (b"", b"{", b"[]", b'{"Actor": {"ID": 5, "Attributes": {"image": "x", "name": "y"}}}', b"x" * 100_000):
        fake.stream.put(line)
    fake.make(ID, "alpine:3", "web")
    talk.heard()
    assert talk.containers.describe(Container(ID, "")) == Description("alpine:3", "web")


def test_who_is_unknown_is_asked_for_and_not_waited_for(engine: tuple[FakeEngine, Path], talk: Talk) -> None:
    fake, _ = engine
    assert fake.followed.wait(10)
    fake.containers[OTHER] = "late:1", "late"
    assert talk.containers.describe(Container(OTHER, "docker")) is None
    talk.heard()
    assert talk.containers.describe(Container(OTHER, "docker")) == Description("late:1", "late")


def test_what_nobody_knows_is_not_asked_for_with_every_packet() -> None:
    now = [0.0]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        containers = Containers(ours, lambda: now[0])
        for _ in range(100):
            assert containers.describe(Container(ID, "docker")) is None
        now[0] = 3.0
        assert containers.describe(Container(ID, "docker")) is None
        theirs.setblocking(False)
        assert theirs.recv(1000) == theirs.recv(1000)
        with pytest.raises(BlockingIOError):
            theirs.recv(1000)


def test_an_answer_is_awaited_for_a_second_after_the_first_question() -> None:
    now = [0.0]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        containers = Containers(ours, lambda: now[0])
        owner = Owner(7, 70, 0, "/bin/app", ("app",), f"/docker/{ID}", container=ID)
        assert not containers.awaits(owner)
        containers.describe(Container(ID, "docker"))
        assert containers.awaits(owner)
        assert not containers.awaits(replace(owner, container=""))
        now[0] = 1.0
        assert not containers.awaits(owner)
        now[0] = 3.0  # it is asked again, and nobody waits for that
        containers.describe(Container(ID, "docker"))
        assert not containers.awaits(owner)
        containers.describe(Container(OTHER, "docker"))
        theirs.send(msgspec.json.encode(Answer(OTHER, "app:1", "web")))
        assert containers.hear()
        assert not containers.awaits(replace(owner, container=OTHER))


def test_another_engine_s_container_is_not_asked_for(engine: tuple[FakeEngine, Path], talk: Talk) -> None:
    fake, _ = engine
    assert fake.followed.wait(10)
    fake.containers |= {ID: ("x:1", "x"), OTHER: ("y:1", "y")}
    assert talk.containers.describe(Container(ID, "crio")) is None
    assert talk.containers.describe(Container(OTHER, "docker")) is None
    talk.heard()
    assert talk.containers.describe(Container(OTHER, "docker")) == Description("y:1", "y")


def test_an_inquirer_that_is_gone_leaves_everything_unknown() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        containers = Containers(ours, lambda: 0.0)
        theirs.close()
        assert containers.describe(Container(ID, "docker")) is None
        assert not containers.hear()


@pytest.mark.kernel("root")
def test_the_inquirer_is_a_process_of_its_own_with_one_capability(engine: tuple[FakeEngine, Path]) -> None:
    fake, path = engine
    fake.containers[ID] = "alpine:3", "web"
    path.chmod(0o600)  # and not that user's
    user = User(61_853, 61_853, (), "dnsfw", "/", "/")
    with Inquiry(user, lambda: 0.0, [socket_of(path)]) as inquiry:
        select.select([inquiry.containers], [], [], 10)
        assert inquiry.containers.hear()
        assert inquiry.containers.describe(Container(ID, "docker")) == Description("alpine:3", "web")
        status = dict(line.split(":", 1) for line in Path(f"/proc/{inquiry.pid}/status").read_text().splitlines())
        kept = {name: status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs")}
        assert status["Uid"].split() == ["61853"] * 4
    only = f"{1 << Capability.DAC_OVERRIDE:016x}"
    assert kept == {"CapEff": only, "CapPrm": only, "CapBnd": only, "NoNewPrivs": "1"}
    assert not Path(f"/proc/{inquiry.pid}").exists()
