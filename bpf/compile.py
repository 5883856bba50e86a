"""From C text to programs attached by links: what the loader's child does.

Law: the only file that knows bcc. It runs in a process that ends soon after, because the compiler holds some 120 MB
and bcc keeps what it loads for as long as it lives.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from bpf import records
from bpf.btf import Btf
from bpf.errors import BpfError
from bpf.syscall import link_to_cgroup

HERE = Path(__file__).parent
MAPS = ("flows", "sockets", "programs", "watched")  # in the order in which their descriptors travel

# The program's name of each field of the kernel's that it reads.
_FIELDS = {
    "TASK_LEADER": ("task_struct", "group_leader"),
    "TASK_START": ("task_struct", "start_boottime"),
    "TASK_EXEC_ID": ("task_struct", "self_exec_id"),
    "TASK_MM": ("task_struct", "mm"),
    "MM_EXE_FILE": ("mm_struct", "exe_file"),
    "MM_ARG_START": ("mm_struct", "arg_start"),
    "MM_ARG_END": ("mm_struct", "arg_end"),
    "FILE_PATH_MNT": ("file", "f_path", "mnt"),
    "FILE_PATH_DENTRY": ("file", "f_path", "dentry"),
    "DENTRY_PARENT": ("dentry", "d_parent"),
    "DENTRY_NAME": ("dentry", "d_name", "name"),
    "DENTRY_HASHED": ("dentry", "d_hash", "pprev"),
    "VFSMOUNT_ROOT": ("vfsmount", "mnt_root"),
    "MOUNT_VFSMOUNT": ("mount", "mnt"),
    "MOUNT_PARENT": ("mount", "mnt_parent"),
    "MOUNT_POINT": ("mount", "mnt_mountpoint"),
    "MOUNT_NAMESPACE": ("mount", "mnt_ns"),
    "MNT_NS_USER_NS": ("mnt_namespace", "user_ns"),
    "USER_NS_LEVEL": ("user_namespace", "level"),
}


@dataclass(frozen=True, slots=True)
class Hook:
    """A function of owner.bpf.c and where it goes: enum bpf_prog_type and bpf_attach_type of linux/bpf.h."""

    function: str
    program_type: int
    attach_type: int


HOOKS = (
    Hook("on_connect4", 18, 10),  # BPF_PROG_TYPE_CGROUP_SOCK_ADDR
    Hook("on_connect6", 18, 11),
    Hook("on_sendmsg4", 18, 14),
    Hook("on_sendmsg6", 18, 15),
    Hook("on_sock_ops", 13, 3),  # BPF_PROG_TYPE_SOCK_OPS
    Hook("on_egress", 8, 1),  # BPF_PROG_TYPE_CGROUP_SKB
)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What a program is built from, beside its text."""

    bcc: Path = Path("/usr/lib/python3/dist-packages/bcc")  # Debian's and Ubuntu's python3-bpfcc
    btf: Path = Path("/sys/kernel/btf/vmlinux")
    layouts: tuple[records.Layout, ...] = records.LAYOUTS


def attach(cgroup: Path, toolchain: Toolchain) -> list[int]:
    """Compile, load and attach everything; return the maps' descriptors and then the links', in the order of MAPS
    and HOOKS. Raises BpfError; what the compiler or verifier has to say goes to standard error."""
    bcc = _import_bcc(toolchain.bcc)
    flags = _flags(toolchain.btf)
    os.environ["BCC_KERNEL_SOURCE"] = str(HERE)  # our include tree instead of kernel headers
    try:
        program = bcc.BPF(text=_source(toolchain.layouts), cflags=flags)
        loaded = [
            program.load_func(hook.function.encode(), hook.program_type, None, hook.attach_type) for hook in HOOKS
        ]
        maps = [program[name.encode()].map_fd for name in MAPS]
    except Exception as error:  # bcc raises no other
        raise BpfError(f"bcc can't load the BPF program: {error}") from error
    return maps + list(_link(cgroup, [function.fd for function in loaded]))


def _link(cgroup: Path, programs: list[int]) -> Iterator[int]:
    try:
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        for program, hook in zip(programs, HOOKS, strict=True):
            yield link_to_cgroup(program, directory, hook.attach_type)
    except OSError as error:
        raise BpfError(f"BPF programs can't be attached to {cgroup}: {error.strerror}; is it on cgroup2?") from error


def _source(layouts: tuple[records.Layout, ...]) -> bytes:
    program = (HERE / "owner.bpf.c").read_text()
    return (program + "".join(layout.assertions() for layout in layouts)).encode()


def _flags(btf: Path) -> list[str]:
    try:
        kernel = Btf(btf.read_bytes())
    except OSError as error:
        raise BpfError(f"{btf} can't be read ({error.strerror}): the kernel needs CONFIG_DEBUG_INFO_BTF") from error
    offsets = [f"-D{name}={kernel.offset(*path)}" for name, path in _FIELDS.items()]
    return [f"-I{HERE}", f"-DCONTEST_NS={records.CONTEST_NS}ull", *offsets]


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
