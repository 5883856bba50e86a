"""Where this kernel keeps what the program reads of it: definitions for the compiler.

Law: the only list of the kernel's fields that the program follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from bpf.btf import Btf
from bpf.errors import BpfError

# The program's name of each field of the kernel's that it reads.
FIELDS = {
    "TASK_PID": ("task_struct", "pid"),
    "TASK_TGID": ("task_struct", "tgid"),
    "TASK_COMM": ("task_struct", "comm"),
    "TASK_CRED": ("task_struct", "cred"),
    "TASK_NSPROXY": ("task_struct", "nsproxy"),
    "TASK_CGROUPS": ("task_struct", "cgroups"),
    "TASK_SIGNAL": ("task_struct", "signal"),
    "TASK_LEADER": ("task_struct", "group_leader"),
    "TASK_START": ("task_struct", "start_boottime"),
    "TASK_EXEC_ID": ("task_struct", "self_exec_id"),
    "TASK_MM": ("task_struct", "mm"),
    "MM_EXE_FILE": ("mm_struct", "exe_file"),
    "MM_ARG_START": ("mm_struct", "arg_start"),
    "MM_ARG_END": ("mm_struct", "arg_end"),
    "MM_ENV_START": ("mm_struct", "env_start"),
    "MM_ENV_END": ("mm_struct", "env_end"),
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
    "MNT_NS_INUM": ("mnt_namespace", "ns", "inum"),
    "USER_NS_LEVEL": ("user_namespace", "level"),
    "PID_NS_INUM": ("pid_namespace", "ns", "inum"),
    "PID_NS_PARENT": ("pid_namespace", "parent"),
    "NSPROXY_PID": ("nsproxy", "pid_ns_for_children"),
    "NSPROXY_MNT": ("nsproxy", "mnt_ns"),
    "CRED_UID": ("cred", "uid"),
    "CSS_SET_SUBSYS": ("css_set", "subsys"),
    "CSS_SET_DFL_CGROUP": ("css_set", "dfl_cgrp"),
    "CSS_CGROUP": ("cgroup_subsys_state", "cgroup"),
    "CGROUP_KN": ("cgroup", "kn"),
    "KN_ID": ("kernfs_node", "id"),
    "SIGNAL_LIVE": ("signal_struct", "live"),
}
# And those of packets that wait for their verdict. Kernels before 6.4 have no hook for them; what an interrupt looks
# like was tried on x86 only.
PACKET_FIELDS = {
    "CONTEXT_STATE": ("bpf_nf_ctx", "state"),
    "CONTEXT_SKB": ("bpf_nf_ctx", "skb"),
    "STATE_SOCK": ("nf_hook_state", "sk"),
    "SKB_LENGTH": ("sk_buff", "len"),
    "SKB_MARK": ("sk_buff", "mark"),
    "SKB_HEAD": ("sk_buff", "head"),
    "SKB_NETWORK": ("sk_buff", "network_header"),
    "NETNS_COOKIE": ("net", "net_cookie"),
    "SOCK_NETNS": ("sock_common", "skc_net", "net"),
    "SOCK_COOKIE": ("sock_common", "skc_cookie"),
    "SOCK_OWNED": ("sock", "sk_lock", "owned"),
    "SOCK_SOCKET": ("sock", "sk_socket"),
    "FILE_INODE": ("file", "f_inode"),
    "INODE_NUMBER": ("inode", "i_ino"),
    "SOCKET_FILE": ("socket", "file"),
    "REGS_CALL": ("pt_regs", "orig_ax"),
    "TASK_STACK": ("task_struct", "stack"),
    "TASK_FLAGS": ("task_struct", "flags"),
}


def read_btf(btf: Path) -> Btf:
    """The running kernel's. Raises BpfError."""
    try:
        return Btf(btf.read_bytes())
    except OSError as error:
        raise BpfError(f"{btf} can't be read ({error.strerror}): the kernel needs CONFIG_DEBUG_INFO_BTF") from error


def definitions(kernel: Btf, fields: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Raises BpfError where this kernel has no such field."""
    for name, path in fields.items():
        yield f"-D{name}={kernel.offset(*path)}"
