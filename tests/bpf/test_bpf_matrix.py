"""The matrix: protocol × family × style of socket × lifetime × container, by BPF and, where it can hold, by /proc."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from bpf.owners import Owners
from policy.values import address
from tests.bpf.conftest import PRELUDE, RESOLVER_PORT, Bed, Speaker
from tests.bpf.speakers import FAMILIES, RESOLVERS, STYLES, facts

pytestmark = pytest.mark.kernel("root", "netns", "nft", "bpf", "cgroup2")

SOURCES = ["bpf", "older bpf", "proc"]
ID = "4f6d2a9c" * 8


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("style", STYLES)
def test_owner_of_every_kind_of_socket(bed: Bed, sink: int, style: str, family: str, source: str) -> None:
    kind, destination, sender = FAMILIES[family]
    speaker = bed.speaker(STYLES[style], kind, destination, str(sink), sender)
    flow = speaker.flow()
    assert flow.src == address(sender)
    assert bed.source(source).of(flow) == facts(speaker, bed)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("style", RESOLVERS)
def test_owner_of_a_redirected_query(bed: Bed, style: str, family: str, source: str) -> None:
    """What the resolver sees, client -> itself, belongs to the client that spoke to some other address's port 53."""
    kind, destination, sender = FAMILIES[family]
    host = "::1" if kind == "6" else "127.0.0.1"
    with bed.resolver(host, socket.SOCK_STREAM if style.startswith("tcp") else socket.SOCK_DGRAM) as resolver:
        speaker = bed.speaker(STYLES[style], kind, destination, "53", sender)
        sent = speaker.flow()
        assert resolver.client() == (str(sent.src), sent.sport)
    asked = sent.but(dst=address(host), dport=RESOLVER_PORT)
    assert bed.source(source).of(asked) == facts(speaker, bed)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("style", [style for style in STYLES if style.startswith("tcp") or "connected" not in style])
def test_a_process_that_is_gone(bed: Bed, sink: int, style: str, family: str) -> None:
    """A connected UDP socket is looked up in the kernel, so it can't have gone before its packet was judged."""
    kind, destination, sender = FAMILIES[family]
    speaker = bed.speaker(STYLES[style], kind, destination, str(sink), sender)
    flow, expected = speaker.flow(), facts(speaker, bed)
    speaker.end()
    assert Owners(bed.sources).of(flow) == expected  # a new one: nothing cached
    assert bed.searched.of(flow) is None


@contextmanager
def container(bed: Bed) -> Iterator[Bed]:
    """A bed whose processes are in a container's cgroup, made by root, and in namespaces of their own."""
    with ExitStack() as stack:
        inside = bed.cgroup
        for name in ("system.slice", f"docker-{ID}.scope"):
            inside = inside / name
            inside.mkdir()
            stack.callback(inside.rmdir)
        stack.callback(bed.silence)
        yield replace(bed, cgroup=inside)


def contained(inside: Bed, style: str, *arguments: str) -> Speaker:
    program = [sys.executable, "-I", "-S", "-c", PRELUDE + STYLES[style], *arguments]
    return inside.start(["unshare", "--fork", "--pid", "--mount", "--kill-child", *program])


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("style", ["tcp connect", "udp sendto", "udp connected"])
def test_a_process_in_a_container(bed: Bed, sink: int, style: str, family: str, source: str) -> None:
    kind, destination, sender = FAMILIES[family]
    with container(bed) as inside:
        flow = contained(inside, style, kind, destination, str(sink), sender).flow()
        owner = bed.source(source).of(flow)
    assert owner is not None
    assert (owner.container, owner.image, owner.complete) == (ID, None, True)


@pytest.mark.parametrize("source", SOURCES)
def test_a_socket_that_two_processes_hold(bed: Bed, sink: int, source: str) -> None:
    """BPF knows who used it; of those who hold it, /proc can't tell."""
    script = """
s = udp("4")
if os.fork() == 0:
    s.sendto(b"x", ("198.51.100.7", int(sys.argv[1])))
    say(17, "10.9.9.1", s.getsockname()[1], "198.51.100.7", sys.argv[1]); print(os.getpid(), flush=True)
    wait(); os._exit(0)
os.wait()
"""
    speaker = bed.speaker(script, str(sink))
    flow, user = speaker.flow(), int(speaker.line())
    owner = bed.source(source).of(flow)
    assert (owner and owner.pid) == (None if source == "proc" else user)


def test_each_source_says_which_it_is(bed: Bed) -> None:
    assert [str(bed.source(name).attribution) for name in SOURCES] == [
        "BPF on packets as they are sent",
        "BPF on the cgroup's sockets",
        "sock_diag and /proc",
    ]


@pytest.mark.parametrize("source", SOURCES)
def test_a_port_that_two_processes_share(bed: Bed, sink: int, source: str) -> None:
    """One of them sends: BPF knows which, and of two sockets on one port /proc can't tell."""
    script = """
s = udp("4"); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(("10.9.9.1", int(sys.argv[2])))
if sys.argv[2] == "0": s.sendto(b"x", ("198.51.100.7", int(sys.argv[1])))
say(17, *s.getsockname(), "198.51.100.7", sys.argv[1]); wait()
"""
    speaker = bed.speaker(script, str(sink), "0")
    flow = speaker.flow()
    assert bed.speaker(script, str(sink), str(flow.sport)).flow() == flow
    assert bed.source(source).of(flow) == (None if source == "proc" else facts(speaker, bed))
