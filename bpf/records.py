"""The records that the BPF program writes, as Python reads them.

Law: pure, and the only place that knows sizes, offsets and byte order. `owner.h` is the same in C: `assertions`
compiles these layouts against it, `loader` compares them with the maps that the kernel made.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import cached_property
from ipaddress import IPv4Address

from policy.values import Address, Flow

# Two processes that use different sockets for one flow within this time contest it: longer than a packet waits for
# its verdict, shorter than ports take to come round.
CONTEST_NS = 200_000_000

DIGEST_FACTOR = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: odd, its bits well mixed

_V4_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2
_ANYWHERE = bytes(16)
_DNS = 53


@dataclass(frozen=True)
class Layout:
    """A C structure of fixed size: its name, its byte order, and each field's name and `struct` format, in order."""

    name: str
    order: str  # "!" network, "=" this machine's
    fields: tuple[tuple[str, str], ...]

    @cached_property
    def format(self) -> struct.Struct:
        return struct.Struct(self.order + "".join(form for _, form in self.fields))

    @property
    def size(self) -> int:
        return self.format.size

    def assertions(self) -> str:
        """C text that fails to compile where the C side has this structure otherwise."""
        checks = [f'_Static_assert(sizeof(struct {self.name}) == {self.size}, "size of {self.name}");']
        offset = 0
        for field, form in self.fields:
            checks.append(
                f"_Static_assert(__builtin_offsetof(struct {self.name}, {field}) == {offset},"
                f' "{self.name}.{field}: bpf/records.py says offset {offset}");'
            )
            offset += struct.calcsize(self.order + form)
        return "\n".join(checks) + "\n"


FLOW_KEY = Layout(
    "flow_key",
    "!",
    (
        ("source", "16s"),
        ("destination", "16s"),
        ("source_port", "H"),
        ("destination_port", "H"),
        ("protocol", "B"),
        ("judged", "B"),
        ("zero", "2x"),
    ),
)
PROCESS_KEY = Layout("process_key", "=", (("start_ns", "Q"), ("exec_id", "Q"), ("tgid", "I"), ("zero", "4x")))
OWNER = Layout(
    "owner",
    "=",
    (
        ("process", f"{PROCESS_KEY.size}s"),
        ("cookie", "Q"),
        ("used_ns", "Q"),
        ("cgroup", "Q"),
        ("netns", "Q"),
        ("uid", "I"),
        ("flags", "I"),
    ),
)
CONNECTION = Layout("connection", "=", (("flow", f"{FLOW_KEY.size}s"), ("owner", f"{OWNER.size}s"), ("digest", "Q")))
PROGRAM = Layout(
    "program",
    "=",
    (
        ("flags", "I"),
        ("exe_bytes", "I"),
        ("argv_bytes", "I"),
        ("pid_depth", "I"),
        ("mount_namespace", "I"),
        ("zero", "4x"),
        ("legacy_cgroup", "Q"),
        ("step", f"{PROCESS_KEY.size}s"),
        ("comm", "16s"),
        ("exe", "768s"),
        ("argv", "1024s"),
    ),
)
SURROUNDINGS = Layout(
    "surroundings",
    "=",
    (("flags", "I"), ("argv_bytes", "I"), ("environ_bytes", "I"), ("zero", "4x"), ("text", "32768s")),
)
COOKIE = struct.Struct("=Q")
WORD = struct.Struct("=I")  # an index into an array
COUNT = struct.Struct("=Q")
_COOKIE_AT = PROCESS_KEY.size
_NO_STEP = bytes(PROCESS_KEY.size)
LAYOUTS = (FLOW_KEY, PROCESS_KEY, OWNER, CONNECTION, PROGRAM, SURROUNDINGS)


class FlowFlag(IntFlag):
    CONTESTED = 1  # two processes claimed one flow at once


class ProgramFlag(IntFlag):
    EXE = 1  # the path is known
    DELETED = 2  # and leads to that file no longer
    ARGV = 4  # the arguments are known
    ARGV_CUT = 8  # but not all of them


class SurroundingsFlag(IntFlag):
    WHOLE = 1


class Part(IntFlag):
    """What is at work beside the programs that always are: in the map `parts`."""

    STEPS = 1
    SENDERS = 2


class Counter(IntEnum):
    """The slots of the map `counts`, as in owner.h."""

    NEW_FLOWS = 0
    NEW_SOCKETS = 1
    NEW_PROGRAMS = 2
    GONE_FLOWS = 3
    LOST_CONNECTIONS = 4
    UNTRACKED_CHILDREN = 5


@dataclass(frozen=True, slots=True)
class Use:
    """Who last used a socket. `process` is a raw process_key: the key of its program."""

    process: bytes
    pid: int
    start_ns: int
    cookie: int
    used_ns: int  # of the kernel's monotonic clock
    cgroup: int
    uid: int
    contested: bool


# How many PID namespaces lie between a process's and ours, if its is not below ours at all.
NOT_BELOW = 255


@dataclass(frozen=True, slots=True)
class Program:
    """What a process ran, and where, when it first used a socket. What is unknown is "" or (), and `complete` False.

    `pid_depth` counts the PID namespaces from ours down to the process's: 0 is ours, NOT_BELOW none of ours.
    `mount_namespace` is an inode number, `legacy_cgroup` one of a cgroup v1 hierarchy (0: there is none), `step` a raw
    process_key, of the first process of this step of a job (b"": none is known).
    """

    exe: str
    argv: tuple[str, ...]
    complete: bool
    comm: str
    pid_depth: int
    mount_namespace: int
    legacy_cgroup: int
    step: bytes


UNKNOWN_PROGRAM = Program("", (), False, "", NOT_BELOW, 0, 0, b"")  # noqa: FBT003 - in the order above


def flow_key(flow: Flow, *, any_source: bool = False, judged: bool = False) -> bytes:
    """The key of a flow; with `any_source`, of one whose source address the kernel had not chosen yet; with `judged`,
    of its newest packet that waits for a verdict."""
    source = _ANYWHERE if any_source else _wire(flow.src)
    return FLOW_KEY.format.pack(source, _wire(flow.dst), flow.sport, flow.dport, flow.proto, judged)


def question_key(flow: Flow) -> bytes:
    """The key of a question, wherever it was sent to before it was redirected to us."""
    return FLOW_KEY.format.pack(_wire(flow.src), _ANYWHERE, flow.sport, _DNS, flow.proto, False)  # noqa: FBT003 - as above


_KEY_WORDS = struct.Struct("=5Q")
_OWNER_WORDS = struct.Struct("=8Q")


def digest(seed: int, words: tuple[int, ...]) -> int:
    """As in user.bpf.c."""
    for word in words:
        seed = (seed ^ word) * DIGEST_FACTOR & 0xFFFFFFFFFFFFFFFF
        seed ^= seed >> 32
    return seed


def connection_places(key: bytes, places: int) -> tuple[bytes, bytes]:
    """The two places, of so many, where a connection with that flow_key may stand."""
    first = digest(0, _KEY_WORDS.unpack(key)) % places & ~1
    return WORD.pack(first), WORD.pack(first + 1)


def connection_owner(record: bytes, key: bytes) -> bytes | None:
    """The owner in a record, if it is whole and of that flow_key."""
    flow, owner, said = CONNECTION.format.unpack(record)
    whole = digest(digest(0, _KEY_WORDS.unpack(key)), _OWNER_WORDS.unpack(owner)) == said
    return owner if flow == key and whole else None


def identity(record: bytes) -> bytes:
    """What of an owner's record stays the same from one use to the next: all but the socket and the time."""
    return record[:_COOKIE_AT] + record[_COOKIE_AT + 2 * COOKIE.size :]  # used_ns follows the cookie


def read_use(record: bytes) -> Use:
    process, cookie, used_ns, cgroup, _, uid, flags = OWNER.format.unpack(record)
    start_ns, _, pid = PROCESS_KEY.format.unpack(process)
    return Use(process, pid, start_ns, cookie, used_ns, cgroup, uid, bool(flags & FlowFlag.CONTESTED))


def read_program(record: bytes) -> Program:
    flags, exe_bytes, argv_bytes, depth, mounts, legacy, step, comm, exe, argv = PROGRAM.format.unpack(record)
    whole = flags & ProgramFlag.EXE and flags & ProgramFlag.ARGV and not flags & ProgramFlag.ARGV_CUT
    return Program(
        exe=_path(exe[:exe_bytes], deleted=bool(flags & ProgramFlag.DELETED)) if flags & ProgramFlag.EXE else "",
        argv=arguments(argv[:argv_bytes]) if flags & ProgramFlag.ARGV else (),
        complete=bool(whole),
        comm=text(comm.partition(b"\0")[0]),
        pid_depth=depth,
        mount_namespace=mounts,
        legacy_cgroup=legacy,
        step=b"" if step == _NO_STEP else step,
    )


def read_surroundings(record: bytes) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Arguments and environment; None if they are not all there."""
    flags, argv_bytes, environ_bytes, block = SURROUNDINGS.format.unpack(record)
    if not flags & SurroundingsFlag.WHOLE:
        return None
    return arguments(block[:argv_bytes]), arguments(block[argv_bytes : argv_bytes + environ_bytes])


def arguments(block: bytes) -> tuple[str, ...]:
    """A process's argument block as strings: each ends with NUL, and the last one may have lost its own."""
    if not block:
        return ()
    return tuple(text(argument) for argument in block.removesuffix(b"\0").split(b"\0"))


def text(raw: bytes) -> str:
    r"""Bytes of a foreign process as text that JSON can carry: what is not UTF-8 becomes `\xNN`."""
    return raw.decode("utf-8", "backslashreplace")


def _path(components: bytes, *, deleted: bool) -> str:
    """The path of components given leaf first; a deleted file's is marked as in /proc/PID/exe (proc(5))."""
    names = components.removesuffix(b"\0").split(b"\0") if components else []
    return "/" + "/".join(text(name) for name in reversed(names)) + (" (deleted)" if deleted else "")


def _wire(address: Address) -> bytes:
    return _V4_MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed
