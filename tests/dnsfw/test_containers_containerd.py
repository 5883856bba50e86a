"""containerd: what it is asked, and what is made of its answers; played, and the real one where it is unpacked."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st

from bpf.container import Container
from bpf.source import Description
from dnsfw.containers.containerd import Containerd
from dnsfw.containers.engine import Named, UnansweredError
from dnsfw.containers.fields import fields, text
from dnsfw.containers.grpc import Call, CallError
from tests import features
from tests.dnsfw.containerds import FakeContainerd, container, playing, wire
from tests.dnsfw.engines import talking

ID, OTHER, THIRD = "4f6d2a9c" * 8, "0123abcd" * 8, "89abcdef" * 8
KUBERNETES = {"io.kubernetes.container.name": "web", "io.kubernetes.pod.name": "web-0"}
ASKED_FOR = {"io.kubernetes.cri.image-name": "ghcr.example/app:1"}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[FakeContainerd, Containerd]]:
    path = tmp_path / "containerd.sock"
    with playing(path) as fake:
        yield fake, Containerd(path, os.getuid())


KNOWN = {
    "ctr": ("default", "web.1", container("web.1", "app:1"), Named("web.1", "app:1", "web.1")),
    "nerdctl": ("default", ID, container(ID, "app:1", {"x": "", "nerdctl/name": "web"}), Named(ID, "app:1", "web")),
    "kubernetes": (
        "k8s.io",
        ID,
        container(ID, "sha256:0f", KUBERNETES, ASKED_FOR),
        Named(ID, "ghcr.example/app:1", "web"),
    ),
    "kubernetes, by its image alone": ("k8s.io", ID, container(ID, "app:1", KUBERNETES), Named(ID, "app:1", "web")),
    "another namespace's annotation is nothing": (
        "apps",
        ID,
        container(ID, "app:1", {}, ASKED_FOR),
        Named(ID, "app:1", ID),
    ),
}


@pytest.mark.parametrize("case", KNOWN)
def test_image_and_name_of_a_container(engine: tuple[FakeContainerd, Containerd], case: str) -> None:
    fake, asked = engine
    namespace, name, message, told = KNOWN[case]
    fake.containers |= {("a", OTHER): container(OTHER, "other:1"), (namespace, name): message}
    assert asked.inspect(name) == told


UNTOLD = {
    "unknown": (OTHER, "default", ID),
    "Docker's, which has no image here": (ID, "moby", ID),
    "a namesake in another namespace": ("web", "apps", "web"),
    "no id": ("../x", "default", "../x"),
    "an id that is too long": ("x" * 77, "default", "x" * 77),
}


@pytest.mark.parametrize("case", UNTOLD)
def test_who_is_not_told(engine: tuple[FakeContainerd, Containerd], case: str) -> None:
    fake, asked = engine
    wanted, namespace, name = UNTOLD[case]
    fake.containers[namespace, name] = container(name, "" if namespace == "moby" else "app:1")
    with pytest.raises(UnansweredError):
        asked.inspect(wanted)


def data(octets: bytes) -> bytes:
    """HTTP/2 DATA frames with these octets."""
    frames = (octets[at : at + 0x3F00] for at in range(0, len(octets), 0x3F00))
    return b"".join(b"\0" + struct.pack("!HBBI", len(frame), 0, 0, 1) + frame for frame in frames)


def message(octets: bytes) -> bytes:
    return struct.pack("!BI", 0, len(octets)) + octets


ODD = {
    "another HTTP": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "hung up"),
    "a frame out of place": (b"\0" + struct.pack("!HBBI", 0, 0, 0, 0), "no HTTP/2"),
    "nothing": (b"", "hung up"),
    "no message": (data(message(b"\xff" * 12)), "no sense"),
    "a field that is not whole": (data(message(b"\x0a\x7fx")), "no sense"),
    "no container": (data(message(b"")), "no sense"),
    "no id": (data(message(wire(1, wire(1, "x\r\n") + wire(3, "app:1")))), "no id"),
    "no text": (data(message(wire(1, wire(1, ID) + wire(3, b"\xff")))), "no sense"),
    "no specification": (data(message(wire(1, container(ID, "x") + wire(5, wire(2, b"<html>"))))), "no sense"),
    "one nested too deep": (
        data(message(wire(1, container(ID, "x") + wire(5, wire(2, b'{"x":' + b"[" * 5000))))),
        "no sense",
    ),
    "compressed": (data(b"\x01" + message(wire(1, container(ID, "x")))[1:]), "can't take"),
    "too much": (data(struct.pack("!BI", 0, 5 << 20)), "can't take"),
    "broken off": (b"\0" + struct.pack("!HBBII", 4, 3, 0, 1, 2), "broken off"),
    "good-bye": (b"\0" + struct.pack("!HBBIII", 8, 7, 0, 0, 1, 0), "broken off"),
}


@pytest.mark.parametrize("case", ODD)
def test_an_answer_that_makes_no_sense_is_none(engine: tuple[FakeContainerd, Containerd], case: str) -> None:
    fake, asked = engine
    octets, why = ODD[case]
    fake.raw["Get"] = octets
    with pytest.raises(UnansweredError, match=why):
        asked._get("k8s.io", ID)


def test_one_that_is_not_root_s_is_not_believed(engine: tuple[FakeContainerd, Containerd]) -> None:
    fake, asked = engine
    with pytest.raises(UnansweredError, match="not root's"):
        replace(asked, owner=os.getuid() + 1).inspect(ID)
    assert fake.asked == []


def test_none_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(UnansweredError):
        Containerd(tmp_path / "missing").inspect(ID)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Containerd]:
    """containerd itself, with nothing in it."""
    program, path, config = features.containerd(), tmp_path / "c.sock", tmp_path / "config.toml"
    config.write_text(CONFIG.format(where=tmp_path))
    with subprocess.Popen(["unshare", "-m", "-n", program or "", "--config", config], stderr=subprocess.PIPE) as daemon:
        assert daemon.stderr is not None
        while b"successfully booted" not in (line := daemon.stderr.readline()):
            assert line, "it ended"
        yield Containerd(path)
        daemon.terminate()
        daemon.stderr.read()


CONFIG = """
version = 2
root = "{where}/root"
state = "{where}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{where}/c.sock"
"""


@pytest.mark.kernel("root", "netns", "containerd")
def test_the_real_one(real: Containerd) -> None:
    def create(namespace: str, message: bytes) -> None:
        list(real._answers("/containerd.services.containers.v1.Containers/Create", wire(1, message), namespace))

    create("default", container("web", "app:1"))
    create("apps", container("web", "namesake:1"))
    made = real.made()
    assert next(made) == Named("web", "app:1", "web")
    create("moby", container(OTHER, ""))
    create("k8s.io", container(ID, "sha256:0f", KUBERNETES, ASKED_FOR))
    told = Named(ID, "ghcr.example/app:1", "web")
    assert next(made) == told
    assert real.inspect(ID) == told
    assert real.inspect("web") == Named("web", "app:1", "web")
    for unknown in (OTHER, THIRD, "none"):
        with pytest.raises(UnansweredError, match="knows no"):
            real.inspect(unknown)


def test_all_that_there_are_then_each_as_it_is_made(engine: tuple[FakeContainerd, Containerd]) -> None:
    fake, asked = engine
    fake.containers |= {
        ("apps", "web"): container("web", "namesake:1"),
        ("default", "web"): container("web", "app:1"),
        ("moby", OTHER): container(OTHER, ""),
    }
    made = asked.made()
    assert next(made) == Named("web", "app:1", "web")
    fake.stream.put(b"\xff")
    fake.make("k8s.io", "x" * 200, container("x" * 200, "app:1"))
    fake.make("moby", THIRD, container(THIRD, ""))
    fake.make("k8s.io", ID, container(ID, "sha256:0f", KUBERNETES, ASKED_FOR))
    assert next(made) == Named(ID, "ghcr.example/app:1", "web")
    fake.stream.put(None)
    assert list(made) == []


@pytest.mark.parametrize("kind", ["containerd", "cri-containerd", "nerdctl", ""])
def test_it_is_asked_about_its_own(engine: tuple[FakeContainerd, Containerd], kind: str) -> None:
    fake, asked = engine
    fake.containers["moby", OTHER] = container(OTHER, "")
    with talking([asked]) as talk:
        assert fake.followed.wait(10)
        fake.containers["default", ID] = container(ID, "app:1")
        assert talk.containers.describe(Container(ID, kind)) is None
        talk.heard()
        assert talk.containers.describe(Container(ID, kind)) == Description("app:1", ID)


@given(st.lists(st.tuples(st.integers(1, 2000), st.binary(max_size=300))))
def test_fields_are_read_as_they_were_written(written: list[tuple[int, bytes]]) -> None:
    others = b"\x08\xff\x01" + b"\x11" + bytes(8) + b"\x1d" + bytes(4)  # a number, 64 bits, 32 bits
    assert list(fields(others.join(wire(*each) for each in written))) == written


@given(st.binary(max_size=200))
def test_octets_are_fields_or_a_value_error(octets: bytes) -> None:
    with suppress(ValueError):
        list(fields(octets))


@given(st.text(max_size=31))
def test_a_text_is_written_as_another_writes_it(value: str) -> None:
    assert text(1, value) == wire(1, value)


@given(st.lists(st.binary(max_size=500), max_size=4), st.integers(1, 600))
def test_an_answer_may_come_in_any_pieces(messages: list[bytes], size: int) -> None:
    call = Call("/x.Y/Z", b"", {}, 1000)
    server = H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    server.receive_data(call.sending())
    server.send_headers(1, [(":status", "200")])
    server.send_data(1, b"".join(message(each) for each in messages))
    server.send_headers(1, [("grpc-status", "0")], end_stream=True)
    octets = server.data_to_send()
    received = [each for at in range(0, len(octets), size) for each in call.receive(octets[at : at + size])]
    assert received == messages
    assert call.over


@given(st.binary(max_size=400))
def test_octets_are_an_answer_or_an_error_of_the_call(octets: bytes) -> None:
    call = Call("/x.Y/Z", b"", {}, 1000)
    with suppress(CallError):
        call.receive(octets)
