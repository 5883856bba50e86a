"""Owners on the real kernel: whoever sent a flow is named, whatever the socket, and nobody else ever is."""

from __future__ import annotations

import ctypes
import json
import os
import socket
from pathlib import Path
from shutil import copy2

import pytest

from bpf import records
from bpf.cgroup import CgroupPaths
from bpf.owners import Owners
from policy.values import Flow, Proto, address
from tests.bpf.conftest import NETWORK, RESOLVER_PORT, Bed, cgroup2_mount, own_cgroup, read_flow
from tests.bpf.speakers import STYLES, facts

pytestmark = pytest.mark.kernel("root", "netns", "nft", "bpf", "cgroup2")


def test_a_redirected_query_counts_for_its_newest_sender(bed: Bed) -> None:
    """The same client address and port, used again by another process with another socket, after the first."""
    script = """
s = udp("4"); s.bind(("", int(sys.argv[1]))); s.sendto(b"x", ("198.51.100.7", 53))
say(17, "10.9.9.1", s.getsockname()[1], "127.0.0.1", sys.argv[2]); wait()
"""
    with bed.resolver("127.0.0.1", socket.SOCK_DGRAM) as resolver:
        first = bed.speaker(script, "0", str(RESOLVER_PORT))
        flow = first.flow()
        resolver.client()
        assert bed.owners.of(flow) == facts(first, bed)
        first.end()
        second = bed.speaker(script, str(flow.sport), str(RESOLVER_PORT))
        assert second.flow() == flow
        resolver.client()
    assert bed.owners.of(flow) in (None, facts(second, bed))  # None: so soon after the first it is contested


def test_a_process_that_is_gone_is_known_as_it_was(bed: Bed, sink: int) -> None:
    speaker = bed.speaker(STYLES["tcp connect, non-blocking"], "4", "198.51.100.7", str(sink), "10.9.9.1")
    flow, expected = speaker.flow(), facts(speaker, bed)
    speaker.end()
    assert not Path(f"/proc/{speaker.pid}").exists()
    assert Owners(bed.sources).of(flow) == expected  # a new one: nothing cached


def test_what_it_was_when_it_spoke_outlives_an_exec(bed: Bed, sink: int) -> None:
    script = """
s = tcp("4"); s.connect(("198.51.100.7", int(sys.argv[1]))); say_connected(s, 6); wait()
u = udp("4"); u.set_inheritable(True)
again = '''import socket, sys
u = socket.socket(fileno=int(sys.argv[1])); u.sendto(b"x", ("198.51.100.7", int(sys.argv[2])))
print(17, "10.9.9.1", u.getsockname()[1], "198.51.100.7", sys.argv[2], flush=True)
sys.stdin.readline()'''
os.execv(sys.executable, ["another", "-I", "-S", "-c", again, str(u.fileno()), sys.argv[1]])
"""
    speaker = bed.speaker(script, str(sink))
    first, before = speaker.flow(), facts(speaker, bed)
    speaker.say("go")
    second = speaker.flow()
    after = facts(speaker, bed)
    assert (before.pid, before.start_time) == (after.pid, after.start_time)
    assert before.argv != after.argv
    assert Owners(bed.sources).of(first) == before
    assert bed.owners.of(second) == after


@pytest.mark.parametrize("passing", ["fork", "SCM_RIGHTS"])
def test_a_shared_socket_counts_for_the_one_that_uses_it(bed: Bed, sink: int, passing: str) -> None:
    script = """
to = ("198.51.100.7", int(sys.argv[2])); passed = sys.argv[1] == "SCM_RIGHTS"
s = udp("4"); s.sendto(b"parent", to); say(17, "10.9.9.1", s.getsockname()[1], *to); wait()
ours, theirs = socket.socketpair()
child = os.fork()
if child == 0:
    if passed: s = socket.socket(fileno=socket.recv_fds(theirs, 1, 1)[1][0])
    s.sendto(b"child", to); print(os.getpid(), flush=True); wait(); os._exit(0)
if passed: socket.send_fds(ours, [b"x"], [s.fileno()])
os.waitpid(child, 0)
"""
    speaker = bed.speaker(script, passing, str(sink))
    flow = speaker.flow()
    parent = bed.owners.of(flow)
    assert parent == facts(speaker, bed)
    speaker.say("go")
    child = int(speaker.line())
    owner = bed.owners.of(flow)
    assert owner is not None
    assert owner.pid == child != parent.pid
    assert (owner.exe, owner.argv) == (parent.exe, parent.argv)


# One process uses a socket, and right after it another process uses another one of the same address and port.
IN_TURN = """
to = ("198.51.100.7", int(sys.argv[1]))
def bound(make, port=0):
    s = make("4"); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(("10.9.9.1", port)); return s
def port_of(s): return s.getsockname()[1]
def sendto(s): s.sendto(b"x", to)
def connect(s): s.setblocking(False); s.connect_ex(to)
def in_turn(proto, port, first, second):
    first()
    if os.fork() == 0:
        second(); say(proto, "10.9.9.1", port, *to); print(os.getpid(), flush=True); wait(); os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize(("first", "second"), [("sendto", "sendto"), ("connect", "sendto"), ("sendto", "connect")])
def test_udp_of_two_processes_on_one_port_is_nobodys(bed: Bed, sink: int, first: str, second: str) -> None:
    script = f"{IN_TURN}\na = bound(udp); b = bound(udp, port_of(a))\n"
    script += f"in_turn(17, port_of(a), lambda: {first}(a), lambda: {second}(b))"
    flow = bed.speaker(script, str(sink)).flow()
    assert bed.older.of(flow) is None
    assert bed.searched.of(flow) is None


def test_a_tcp_port_that_is_used_again_is_its_new_users(bed: Bed, sink: int) -> None:
    script = """
a = bound(tcp); b = bound(tcp, port_of(a)); a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1] + [0] * 7))
port = port_of(a)
def and_close(): connect(a); a.close()
in_turn(6, port, and_close, lambda: connect(b))
"""
    speaker = bed.speaker(IN_TURN + script, str(sink))
    owner = bed.owners.of(speaker.flow())
    assert owner is not None
    assert owner.pid == int(speaker.line()) != speaker.pid


def test_a_tuple_repeated_in_another_network_namespace_is_nobodys(bed: Bed, sink: int) -> None:
    script = """
import subprocess
a = bound(tcp); home = os.open("/proc/self/ns/net", os.O_RDONLY)
os.unshare(os.CLONE_NEWNET); subprocess.run(["ip", "-batch", "-"], input=sys.argv[2], text=True, check=True)
b = bound(tcp, port_of(a)); os.setns(home, os.CLONE_NEWNET)
in_turn(6, port_of(a), lambda: connect(a), lambda: connect(b))
"""
    speaker = bed.speaker(IN_TURN + script, str(sink), NETWORK)
    assert bed.owners.of(speaker.flow()) is None


def test_a_reused_pid_is_another_process(bed: Bed, sink: int) -> None:
    """The PID is forced upon a new process by clone3's set_tid (clone(2)); the old one's flow stays the old one's."""
    script = """
import ctypes
to = ("198.51.100.7", int(sys.argv[1])); s = udp("4"); s.bind(("", 0))
def send(): s.sendto(b"x", to); say(17, "10.9.9.1", s.getsockname()[1], *to); wait(); os._exit(0)
first = os.fork()
if first == 0: send()
os.waitpid(first, 0)
tids = (ctypes.c_int * 1)(first)
arguments = (ctypes.c_uint64 * 10)(0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(tids), 1)
second = ctypes.CDLL(None).syscall(435, arguments, 80)
if second == 0: print(os.getpid(), flush=True); wait(); send()
os.waitpid(second, 0)
"""
    speaker = bed.speaker(script, str(sink))
    flow = speaker.flow()
    first = bed.owners.of(flow)
    assert first is not None
    speaker.say("end")
    assert int(speaker.line()) == first.pid  # the second process lives, and has not spoken
    assert bed.owners.of(flow) == first
    before = _newest_use(bed, flow)
    speaker.say("send")
    assert speaker.flow() == flow
    after = _newest_use(bed, flow)
    assert before.pid == after.pid
    assert before.start_ns < after.start_ns  # within one tick of Owner.start_time, perhaps
    assert before.process != after.process  # so nothing that is cached for one is found for the other
    speaker.say("end")


def _newest_use(bed: Bed, flow: Flow) -> records.Use:
    raw = bed.sources.attached.flows.get(records.flow_key(flow, judged=True))
    assert raw is not None
    return records.read_use(raw)


@pytest.mark.parametrize(
    "flow",
    [
        Flow(Proto.TCP, address("10.9.9.1"), 1, address("198.51.100.7"), 1),
        Flow(Proto.UDP, address("10.9.9.1"), 1, address("198.51.100.7"), 1),
        Flow(Proto.UDP, address("fd09::1"), 1, address("2001:db8::1"), 53),
        Flow(Proto.ICMP, address("10.9.9.1"), 0, address("198.51.100.7"), 0),
        Flow(132, address("10.9.9.1"), 1, address("198.51.100.7"), 1),
    ],
    ids=str,
)
def test_a_flow_that_nobody_sent_is_unknown(bed: Bed, flow: Flow) -> None:
    assert bed.owners.of(flow) is None


# bash makes a socket by itself, and is one file that can be copied: program, then what it does first, then arguments.
ODD_PROGRAMS = {
    "moved": ("here", 'mv "$BASH" "$BASH.moved"', []),
    "deleted": ("here", 'rm "$BASH"', []),
    "replaced": ("here", 'rm "$BASH"; cp /bin/true "$BASH"', []),
    "not UTF-8": ("h\udcff", ":", ["\udc80", "é"]),
    "no arguments": ("here", ":", ["", "", "x"]),
    "long name": ("n" * 255, ":", []),
    "deep": ("/".join(["directory"] * 20) + "/here", ":", []),
}


@pytest.mark.parametrize("case", ODD_PROGRAMS)
def test_odd_programs(bed: Bed, tmp_path: Path, case: str) -> None:
    name, act, arguments = ODD_PROGRAMS[case]
    program = tmp_path / name
    program.parent.mkdir(parents=True, exist_ok=True)
    copy2("/bin/bash", program)
    flow, speaker = bed.connect_bash([str(program)], act, *arguments)
    owner = bed.owners.of(flow)
    process = Path(f"/proc/{speaker.pid}")
    argv = (process / "cmdline").read_bytes()
    assert owner is not None
    assert owner.complete
    assert owner.exe == os.fsencode((process / "exe").readlink()).decode(errors="backslashreplace")
    assert owner.argv == tuple(part.decode(errors="backslashreplace") for part in argv[:-1].split(b"\0"))
    json.dumps([owner.exe, owner.argv]).encode()  # nothing in it that a journal can't carry


# What a shell does in a mount namespace of its own before it becomes the copy of bash at "$d/here".
MOUNTS = {
    "tmpfs": 'mount -t tmpfs none "$d"; cp /bin/bash "$d/here"',
    "bind": 'mkdir "$d/far"; cp /bin/bash "$d/far/here"; mount --bind "$d/far" "$d"',
    "overlay": """
        mount -t tmpfs none "$d"; mkdir "$d/lower" "$d/upper" "$d/work" "$d/all"; cp /bin/bash "$d/lower/here"
        mount -t overlay -o lowerdir="$d/lower",upperdir="$d/upper",workdir="$d/work" none "$d/all"; d=$d/all
    """,
    "a mount on a mount": """
        mount -t tmpfs none "$d"; mkdir "$d/deep"; mount -t tmpfs none "$d/deep"; d=$d/deep; cp /bin/bash "$d/here"
    """,
    "unmounted": 'mount -t tmpfs none "$d"; cp /bin/bash "$d/here"',
}


@pytest.mark.parametrize("case", MOUNTS)
def test_programs_on_mounts_of_a_namespace_of_its_own(bed: Bed, tmp_path: Path, case: str) -> None:
    """The path is the one in the process's own mount namespace, whoever looks."""
    script = f'd=$1; shift\n{MOUNTS[case]}\nexec "$d/here" "$@"'
    wrapper = ["unshare", "-m", "sh", "-ec", script, "sh", str(tmp_path)]
    act = 'umount --lazy "${BASH%/here}"' if case == "unmounted" else ":"
    flow, speaker = bed.connect_bash(wrapper, act)
    owner = bed.owners.of(flow)
    assert owner is not None
    assert owner.complete
    assert owner.pid == speaker.pid
    gone = " (deleted)" if case == "unmounted" else ""  # /proc does not say so, and could be led to say /usr/bin/git
    assert owner.exe == str(Path(f"/proc/{speaker.pid}/exe").readlink()) + gone


def test_a_path_in_a_user_namespace_of_ones_own_is_no_evidence(bed: Bed, tmp_path: Path) -> None:
    """There anybody may mount a program of theirs over /usr/bin/cmp: what it is called is unknown, and so satisfies
    no rule."""
    mine = tmp_path / "mine"
    copy2("/bin/bash", mine)
    script = 'mount --bind "$1" /usr/bin/cmp; shift; exec /usr/bin/cmp "$@"'
    flow, speaker = bed.connect_bash(["unshare", "-Urm", "sh", "-ec", script, "sh", str(mine)], ":")
    assert str(Path(f"/proc/{speaker.pid}/exe").readlink()) == "/usr/bin/cmp"
    owner = bed.owners.of(flow)
    assert owner is not None
    assert owner.pid == speaker.pid
    assert owner.exe == ""
    assert not owner.complete


def test_a_pid_is_the_one_of_the_initial_namespace(bed: Bed, sink: int) -> None:
    script = """
os.unshare(os.CLONE_NEWPID); to = ("198.51.100.7", int(sys.argv[1]))
child = os.fork()
if child == 0:
    s = tcp("4"); s.connect(to); say_connected(s, 6); print(os.getpid(), flush=True); wait(); os._exit(0)
print(child, flush=True); os.wait()
"""
    speaker = bed.speaker(script, str(sink))
    lines = sorted((speaker.line() for _ in range(3)), key=len)
    inside, outside, flow = int(lines[0]), int(lines[1]), read_flow(lines[2])
    owner = bed.owners.of(flow)
    assert inside == 1
    assert owner is not None
    assert owner.pid == outside


def test_a_threads_socket_is_its_processs(bed: Bed, sink: int) -> None:
    script = """
import threading
def talk():
    global s; s = tcp("4"); s.connect(("198.51.100.7", int(sys.argv[1])))
thread = threading.Thread(target=talk); thread.start(); thread.join(); say_connected(s, 6); wait()
"""
    speaker = bed.speaker(script, str(sink))
    assert bed.owners.of(speaker.flow()) == facts(speaker, bed)


@pytest.mark.parametrize(
    ("name", "arguments"), [("here", ["x" * 2000]), ("/".join(["d" * 200] * 4) + "/here", [])], ids=["argv", "path"]
)
def test_what_is_too_long_is_said_to_be_incomplete(bed: Bed, tmp_path: Path, name: str, arguments: list[str]) -> None:
    program = tmp_path / name
    program.parent.mkdir(parents=True, exist_ok=True)
    copy2("/bin/bash", program)
    flow, speaker = bed.connect_bash([str(program)], ":", *arguments)
    owner = bed.owners.of(flow)
    assert owner is not None
    assert owner.pid == speaker.pid
    assert not owner.complete
    assert owner.exe in ("", str(program))


def test_a_cgroup_s_name_of_any_bytes_is_text() -> None:
    """It goes into the journal, which is UTF-8."""
    with own_cgroup("\udcff") as cgroup, CgroupPaths(cgroup2_mount()) as paths:
        path = paths.place(cgroup.stat().st_ino).path
    assert path.encode() == f"/dnsfw-test-{os.getpid()}-\\xff".encode()


def test_look_up_works_with_the_engines_capabilities_only(bed: Bed, sink: int) -> None:
    """Another uid, CAP_BPF and CAP_DAC_READ_SEARCH: no CAP_SYS_PTRACE, for no /proc is read."""
    speaker = bed.speaker(STYLES["udp connected"], "4", "198.51.100.7", str(sink), "10.9.9.1")
    flow, expected = speaker.flow(), facts(speaker, bed)
    child = os.fork()
    if child == 0:
        try:
            _become_engine()
            os._exit(0 if Owners(bed.sources).of(flow) == expected else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def _become_engine() -> None:
    """capabilities(7): keep the permitted set over setuid, then cut it down to bits 2 and 39."""
    libc = ctypes.CDLL(None)
    libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    low, high = 1 << 2, 1 << (39 - 32)
    if libc.capset(header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)) != 0:
        os._exit(3)
