"""From C text to programs attached by links: what the loader's child does.

Law: the only file that knows bcc. It runs in a process that ends soon after, because the compiler holds some 120 MB
and bcc keeps what it loads for as long as it lives.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from bpf import records
from bpf.btf import Btf
from bpf.errors import BpfError
from bpf.fields import FIELDS, PACKET_FIELDS, definitions, read_btf
from bpf.syscall import Map, link_to_cgroup, link_to_output, trace

HERE = Path(__file__).parent
_TEXTS = ("owner", "steps", "program", "user", "sender")  # one program: bcc rewrites nothing in what is included
MAPS = ("flows", "connections", "sockets", "programs", "watched", "counts", "parts")
STEP_MAPS = ("steps",)


@dataclass(frozen=True, slots=True)
class Hook:
    """A function of the program's and where it goes: enum bpf_prog_type and bpf_attach_type of linux/bpf.h."""

    function: str
    program_type: int
    attach_type: int


HOOKS = (
    Hook("on_sock_ops", 13, 3),  # BPF_PROG_TYPE_SOCK_OPS
    Hook("on_egress", 8, 1),  # BPF_PROG_TYPE_CGROUP_SKB
)
# Where the senders of packets can't be seen, users of sockets are.
USER_HOOKS = (
    Hook("on_connect", 18, 10),  # BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT
    Hook("on_connect", 18, 11),
    Hook("on_sendmsg4", 18, 14),
    Hook("on_sendmsg6", 18, 15),
)
ON_JUDGED = Hook("on_judged", 32, 45)  # BPF_PROG_TYPE_NETFILTER, BPF_NETFILTER
_FAMILIES = (socket.AF_INET, socket.AF_INET6)  # that it goes to
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h
_NOBODY = 65534
_SET_SECUREBITS, _NO_SETUID_FIXUP = 28, 4  # prctl(2), capabilities(7)
_RAW_TRACEPOINT = 17  # BPF_PROG_TYPE_RAW_TRACEPOINT
_TRACEPOINTS = {"on_fork": "sched_process_fork", "on_exec": "sched_process_exec", "on_exit": "sched_process_exit"}


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What a program is built from, beside its text. The first of `variants` is taken that the kernel takes: older ones
    take less."""

    bcc: Path = Path("/usr/lib/python3/dist-packages/bcc")  # Debian's and Ubuntu's python3-bpfcc
    btf: Path = Path("/sys/kernel/btf/vmlinux")
    layouts: tuple[records.Layout, ...] = records.LAYOUTS
    variants: tuple[tuple[str, ...], ...] = (("TYPED", "PACKETS"), ("TYPED",), ())


@dataclass(frozen=True, slots=True)
class Worker:
    """A CI runner's process that starts each step of a job: its pid, and its start in clock ticks since boot."""

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class Judged:
    """Packets that wait for their verdict: they have `mark` under `mask` on the output hook at any of `priorities`.
    `network` is a descriptor of the network namespace that they leave from; None is the current one."""

    mark: int
    mask: int
    priorities: range
    network: int | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is to be found out, beside the processes below a cgroup. `worker` starts a job's steps; `controller`
    is one whose cgroup v1 hierarchy holds containers, "" without one; with `bridged`, packets of other network
    namespaces come through ours; `judged` are packets whose sender is looked at."""

    worker: Worker | None = None
    controller: str = ""
    bridged: bool = False
    judged: Judged | None = None


def attach(cgroup: Path, toolchain: Toolchain, extent: Extent) -> list[int]:
    """Compile, load and attach everything; return the maps' descriptors, in the order of MAPS and, with a worker,
    STEP_MAPS, and then the links'. Raises BpfError; what the compiler or verifier has to say goes to standard error.
    May leave the process in another network namespace."""
    bcc = _import_bcc(toolchain.bcc)
    kernel = read_btf(toolchain.btf)
    flags = [*definitions(kernel, FIELDS), *_our_flags(kernel, extent)]
    os.environ["BCC_KERNEL_SOURCE"] = str(HERE)  # our include tree instead of kernel headers
    faults = []
    for variant in toolchain.variants:
        if "PACKETS" in variant and extent.judged is None:
            continue
        try:
            loaded = _load(bcc, toolchain, [*flags, *_variant_flags(kernel, extent, variant)], extent)
            judged = list(_link_judged(loaded, extent))
        except Exception as error:  # noqa: BLE001 - bcc raises no other
            faults.append(error)
        else:
            _tell(loaded, extent)
            return [*loaded.maps, *_link(cgroup, loaded), *loaded.tracepoints, *judged]
    raise BpfError(f"bcc can't load the BPF program: {faults[-1]}") from faults[-1]


class _Loaded(NamedTuple):
    maps: list[int]
    hooks: list[tuple[Hook, int]]
    tracepoints: list[int]
    judged: list[int]  # on_judged, where it is wanted and can be had


def _load(bcc: ModuleType, toolchain: Toolchain, flags: list[str], extent: Extent) -> _Loaded:
    with _not_root_by_name():
        program = bcc.BPF(text=_source(toolchain.layouts), cflags=flags)
    seen = any(flag.startswith("-DJUDGED_MARK=") for flag in flags)
    hooks = [(hook, _load_hook(program, hook)) for hook in (HOOKS if seen else HOOKS + USER_HOOKS)]
    judged = [_load_hook(program, ON_JUDGED)] if seen else []
    traced = _TRACEPOINTS.items() if extent.worker else ()
    loaded = [(program.load_func(function.encode(), _RAW_TRACEPOINT).fd, point) for function, point in traced]
    return _Loaded(
        [program[name.encode()].map_fd for name in (*MAPS, *(STEP_MAPS if extent.worker else ()))],
        hooks,
        [trace(fd, point) for fd, point in loaded],
        judged,
    )


@contextmanager
def _not_root_by_name() -> Iterator[None]:
    """With every capability: whom it takes for root bcc has all symbols of the kernel read for, twice, to know whether
    there are helpers that the program takes by their numbers. That takes 0.1 s, which each start waits for."""
    if ctypes.CDLL(None).prctl(_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0) == 0:
        with suppress(OSError):  # a namespace without that user: then it takes its time
            os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _load_hook(program: Any, hook: Hook) -> int:
    """bcc takes a function that it has loaded for loaded; we load one for each family."""
    fd: int = program.load_func(hook.function.encode(), hook.program_type, None, hook.attach_type).fd
    del program.funcs[hook.function.encode()]
    return fd


def _link(cgroup: Path, loaded: _Loaded) -> Iterator[int]:
    try:
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        for hook, program in loaded.hooks:
            yield link_to_cgroup(program, directory, hook.attach_type)
    except OSError as error:
        raise BpfError(f"BPF programs can't be attached to {cgroup}: {error.strerror}; is it on cgroup2?") from error


def _link_judged(loaded: _Loaded, extent: Extent) -> Iterator[int]:
    """A link's network namespace is the one that it is made in. Raises OSError."""
    if extent.judged is None or not loaded.judged:
        return
    if extent.judged.network is not None:
        os.setns(extent.judged.network, os.CLONE_NEWNET)
    for program, family in product(loaded.judged, _FAMILIES):
        yield _link_to_free(program, family, extent.judged.priorities)


def _link_to_free(program: int, family: int, priorities: range) -> int:
    """The kernel takes no BPF program at a priority that anybody else has. Raises OSError."""
    for priority in priorities[:-1]:
        try:
            return link_to_output(program, family, priority)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
    return link_to_output(program, family, priorities[-1])


def _tell(loaded: _Loaded, extent: Extent) -> None:
    parts = records.Part.STEPS if extent.worker else records.Part(0)
    parts |= records.Part.SENDERS if loaded.judged else records.Part(0)
    Map(loaded.maps[MAPS.index("parts")]).put(records.WORD.pack(0), records.COUNT.pack(parts))


def _source(layouts: tuple[records.Layout, ...]) -> bytes:
    program = "".join((HERE / f"{part}.bpf.c").read_text() for part in _TEXTS)
    return (program + "".join(layout.assertions() for layout in layouts)).encode()


def _variant_flags(kernel: Btf, extent: Extent, variant: tuple[str, ...]) -> Iterator[str]:
    """Raises BpfError where this kernel has no such thing."""
    if "TYPED" in variant:
        yield "-DTYPED"
    if "PACKETS" in variant and extent.judged is not None:
        yield f"-DJUDGED_MARK={extent.judged.mark}u"
        yield f"-DJUDGED_MASK={extent.judged.mask}u"
        yield from definitions(kernel, PACKET_FIELDS)


def _our_flags(kernel: Btf, extent: Extent) -> Iterator[str]:
    if extent.controller:
        yield f"-DLEGACY_CONTROLLER={kernel.enumerator('cgroup_subsys_id', f'{extent.controller}_cgrp_id')}"
    yield f"-I{HERE}"
    yield f"-DCONTEST_NS={records.CONTEST_NS}ull"
    yield f"-DDIGEST_FACTOR={records.DIGEST_FACTOR}ull"
    yield f"-DNOT_BELOW={records.NOT_BELOW}"
    yield f"-DOUR_PID_NS={Path('/proc/self/ns/pid').stat().st_ino}"
    if extent.bridged and (cookie := _netns_cookie()):
        yield f"-DOUR_NETNS={cookie}ull"
    if extent.worker:
        yield f"-DWORKER_TGID={extent.worker.pid}"
        yield f"-DWORKER_TICKS={extent.worker.start_time}"
        yield f"-DTICK_NS={10**9 // os.sysconf('SC_CLK_TCK')}"


def _netns_cookie() -> int:
    """Of the network namespace that we are in; 0 where the kernel gives none (before Linux 5.14)."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
    except OSError:
        return 0


def _import_bcc(package: Path) -> ModuleType:
    """Debian's package, which this interpreter does not have on its path, and which is pure Python over libbcc.so."""
    spec = importlib.util.spec_from_file_location(
        "bcc", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    if spec is None or spec.loader is None or not package.is_dir():
        raise BpfError("bcc is not installed: apt-get install python3-bpfcc")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    with warnings.catch_warnings(action="ignore"):  # bcc 0.26 has escapes that Python 3.12 warns of
        try:
            spec.loader.exec_module(module)
        except (ImportError, OSError) as error:
            raise BpfError(f"bcc does not load ({error}): apt-get install --reinstall python3-bpfcc") from error
    return module
