"""Starting the compiler's process and taking over what it loaded.

Law: the parent's side. Nothing is pinned: programs, maps and links live as long as their descriptors, so that they
go when their holder goes, however it ends.

The child is forked, not spawned: it starts at once, next to the rest of start-up, and finds the same code. Fork while
the process has one thread.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from bpf import records
from bpf.compile import MAPS, STEP_MAPS, Extent, Toolchain, attach
from bpf.errors import BpfError
from bpf.syscall import Map

_MESSAGE_BYTES = 4096
_COMPLAINT_BYTES = 1 << 20
_LOADED = b"loaded"
_MOST_FDS = 32
# What the keys and values of each map must measure.
_SHAPES: Mapping[str, tuple[int, int]] = {
    "flows": (records.FLOW_KEY.size, records.OWNER.size),
    "connections": (records.WORD.size, records.CONNECTION.size),
    "sockets": (records.COOKIE.size, records.OWNER.size),
    "programs": (records.PROCESS_KEY.size, records.PROGRAM.size),
    "watched": (records.WORD.size, records.COUNT.size),
    "counts": (records.WORD.size, records.COUNT.size),
    "steps": (records.PROCESS_KEY.size, records.SURROUNDINGS.size),
}
# Which counters tell what went into an LRU map, and what was taken out on purpose.
_LEDGERS = (
    ("flows", records.Counter.NEW_FLOWS, records.Counter.GONE_FLOWS),
    ("sockets", records.Counter.NEW_SOCKETS, None),
    ("programs", records.Counter.NEW_PROGRAMS, None),
)


@dataclass(frozen=True)
class Attached:
    """The programs at work on a cgroup and all below it, until `close`. `descriptors` are the maps' and the links':
    another process that holds them (`take_over`) keeps the programs at work too."""

    flows: Map
    connections: Map
    sockets: Map
    programs: Map
    watched: Map
    counts: Map
    descriptors: tuple[int, ...]
    _owned: ExitStack
    steps: Map | None = None  # there are none where no CI runner is known
    sees_senders: bool = False  # of each packet that is judged, not only of the one that opens a connection
    watched_ports: set[int] = field(default_factory=set, init=False)

    def watch(self, port: int) -> None:
        """Own packets from port 53 that are redirected to this port, as the listener on it sees them."""
        self.watched_ports.add(port)
        word = port // 64
        bits = sum(1 << each % 64 for each in self.watched_ports if each // 64 == word)
        self.watched.put(records.WORD.pack(word), records.COUNT.pack(bits))

    def evicted(self) -> dict[str, int]:
        """How many records each bounded map has lost to newer ones since it was loaded, and how many processes of a
        job found no room ("children"). What was lost is unknown, so it is denied. Takes a few milliseconds: not for
        the path of a packet. Raises OSError."""
        lost = {}
        for name, new, gone in _LEDGERS:
            present: int = getattr(self, name).count()
            taken_out = 0 if gone is None else self._counted(gone)
            lost[name] = max(0, self._counted(new) - taken_out - present)
        lost["connections"] = self._counted(records.Counter.LOST_CONNECTIONS)
        lost["children"] = self._counted(records.Counter.UNTRACKED_CHILDREN)
        return lost

    def connection(self, key: bytes) -> bytes | None:
        """Who opened the TCP connection with that flow_key. Raises OSError."""
        for place in records.connection_places(key, self.connections.shape.max_entries):
            raw = self.connections.get(place)
            if raw and (owner := records.connection_owner(raw, key)):
                return owner
        return None

    def _counted(self, counter: records.Counter) -> int:
        raw = self.counts.get(records.WORD.pack(counter))
        return records.COUNT.unpack(raw)[0] if raw else 0

    def close(self) -> None:
        """Detach everything."""
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Loading:
    """A child at work on the programs, until `finish` or `close`."""

    def __init__(self, child: int, channel: socket.socket, complaints: int) -> None:
        self._channel = channel
        self._complaints = complaints  # what the compiler and the verifier print
        self._cleanup = ExitStack()
        self._cleanup.callback(os.close, complaints)
        self._cleanup.callback(channel.close)
        self._cleanup.callback(_stop, child)

    def finish(self, timeout: float) -> Attached:
        """Wait at most `timeout` seconds for the programs to be attached. Raises BpfError."""
        try:
            message, fds = self._receive(timeout)
            if message == _LOADED:
                return take_over(fds)
            raise BpfError(f"{message.decode() or 'the BPF loader died'}{self._diagnosis()}")
        finally:
            self.close()

    def close(self) -> None:
        """Stop the child if it still works, and let go of everything but what `finish` returned."""
        self._cleanup.close()

    def _receive(self, timeout: float) -> tuple[bytes, list[int]]:
        if not select.select([self._channel], [], [], timeout)[0]:
            raise BpfError(f"the BPF program was not compiled within {timeout:g} s")
        message, fds, _, _ = socket.recv_fds(self._channel, _MESSAGE_BYTES, _MOST_FDS, socket.MSG_CMSG_CLOEXEC)
        return message, fds

    def _diagnosis(self) -> str:
        """The compiler's first error, or the last line that anything printed."""
        printed = os.pread(self._complaints, _COMPLAINT_BYTES, 0).splitlines()
        telling = [line for line in printed if b"error:" in line][:1] or printed[-1:]
        return "".join(f": {records.text(line.strip())}" for line in telling)


def start_loading(cgroup: Path, extent: Extent = Extent(), toolchain: Toolchain = Toolchain()) -> Loading:  # noqa: B008 - frozen
    """Start attaching the programs to a cgroup2 directory, for all processes in it and below."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    complaints = os.memfd_create("dnsfw-bpf-loader")
    child = os.fork()
    if child == 0:
        ours.close()
        _run_child(theirs, complaints, lambda: attach(cgroup, toolchain, extent))
    theirs.close()
    return Loading(child, ours, complaints)


def _run_child(channel: socket.socket, complaints: int, work: Callable[[], list[int]]) -> NoReturn:
    """Never returns into the parent's code, whatever happens."""
    try:
        os.dup2(complaints, 1)
        os.dup2(complaints, 2)
        os.chdir("/")  # clang wants a folder to work in, and the caller's may be gone
        try:
            socket.send_fds(channel, [_LOADED], work())
        except BpfError as error:
            channel.send(str(error).encode()[:_MESSAGE_BYTES])
    except BaseException:  # noqa: BLE001 - the child's last frame: the parent reads this and reports it
        os.write(complaints, traceback.format_exc().encode())
    finally:
        os._exit(0)


def _stop(child: int) -> None:
    """The child has no state to lose, and the number is its own until it is waited for."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def take_over(descriptors: Sequence[int]) -> Attached:
    """What `Attached.descriptors` named in the process that they came from. Raises BpfError."""
    with ExitStack() as owned:
        for fd in descriptors:
            owned.callback(os.close, fd)
        try:
            maps = {name: Map(fd) for name, fd in zip(MAPS, descriptors, strict=False)}  # after them come the links
            parts = _read_parts(maps.pop("parts"))
            if parts & records.Part.STEPS:
                maps |= {name: Map(fd) for name, fd in zip(STEP_MAPS, descriptors[len(MAPS) :], strict=False)}
        except (OSError, KeyError) as error:
            raise BpfError(f"the BPF maps can't be used: {error}") from error
        for name, each in maps.items():
            if (each.shape.key_size, each.shape.value_size) != _SHAPES[name]:
                raise BpfError(f"owner.h and records.py disagree on the map {name}: {each.shape}")
        sees_senders = bool(parts & records.Part.SENDERS)
        return Attached(**maps, descriptors=tuple(descriptors), _owned=owned.pop_all(), sees_senders=sees_senders)


def _read_parts(told: Map) -> records.Part:
    raw = told.get(records.WORD.pack(0))
    return records.Part(records.COUNT.unpack(raw)[0] if raw else 0)
