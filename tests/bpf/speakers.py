"""What processes do to speak, and what they are then: every style of socket that programs and resolvers use."""

from __future__ import annotations

from pathlib import Path

from policy.values import Owner
from tests.bpf.conftest import Bed, Speaker

# Arguments of each: family, address, port. Each ends by saying the flow that it sent.
STYLES = {
    "tcp connect": """
s = tcp(sys.argv[1]); s.connect((sys.argv[2], int(sys.argv[3]))); say_connected(s, 6); wait()
""",
    "tcp connect, non-blocking": """
s = tcp(sys.argv[1]); s.setblocking(False); s.connect_ex((sys.argv[2], int(sys.argv[3])))
say(6, *s.getsockname()[:2], *sys.argv[2:4]); wait()
""",
    "udp sendto": """
s = udp(sys.argv[1]); s.sendto(b"x", (sys.argv[2], int(sys.argv[3])))
say(17, sys.argv[4], s.getsockname()[1], *sys.argv[2:4]); wait()
""",
    "udp sendmsg": """
s = udp(sys.argv[1]); s.sendmsg([b"x", b"y"], [], 0, (sys.argv[2], int(sys.argv[3])))
say(17, sys.argv[4], s.getsockname()[1], *sys.argv[2:4]); wait()
""",
    "udp sendto, bound": """
s = udp(sys.argv[1]); s.bind(("", 0)); s.sendto(b"x", (sys.argv[2], int(sys.argv[3])))
say(17, sys.argv[4], s.getsockname()[1], *sys.argv[2:4]); wait()
""",
    "udp sendmmsg": f"""
exec(open({str(Path(__file__).with_name("sendmmsg.py"))!r}).read())
s = udp(sys.argv[1]); sendmmsg(s, b"x", sys.argv[2], int(sys.argv[3]))
say(17, sys.argv[4], s.getsockname()[1], *sys.argv[2:4]); wait()
""",
    "udp connected": """
s = udp(sys.argv[1]); s.connect((sys.argv[2], int(sys.argv[3]))); s.send(b"x"); say_connected(s, 17); wait()
""",
    "udp connected, write": """
s = udp(sys.argv[1]); s.connect((sys.argv[2], int(sys.argv[3]))); os.write(s.fileno(), b"x")
say_connected(s, 17); wait()
""",
    "udp connected, another thread": """
import threading
s = udp(sys.argv[1]); s.connect((sys.argv[2], int(sys.argv[3])))
thread = threading.Thread(target=s.send, args=(b"x",)); thread.start(); thread.join(); say_connected(s, 17); wait()
""",
    "udp connected, sendto elsewhere": """
s = udp(sys.argv[1]); s.connect((sys.argv[2], 9)); s.sendto(b"x", (sys.argv[2], int(sys.argv[3])))
say(17, sys.argv[4], s.getsockname()[1], *sys.argv[2:4]); wait()
""",
}
# What `pinging.py` is for; arguments: family, address, and the source that the kernel chooses.
PING = f"exec(open({str(Path(__file__).with_name('pinging.py'))!r}).read())\n"
PINGS = {
    "sendto": "ping(ping_socket()); wait()",
    "bound": "s = ping_socket(); s.bind((sys.argv[3], 4660)); ping(s); wait()",
    "connected": """
s = ping_socket(); s.connect((sys.argv[2], 0)); s.send(echo()); say_ping(s.getsockname()[1]); wait()
""",
    "raw": "s = ping_socket(socket.SOCK_RAW); s.sendto(echo(4661), (sys.argv[2], 0)); say_ping(4661); wait()",
}
# Family of the socket, destination, and the source that the kernel chooses.
FAMILIES = {
    "v4": ("4", "198.51.100.7", "10.9.9.1"),
    "v6": ("6", "2001:db8::7", "fd09::1"),
    "v4-mapped": ("mapped", "::ffff:198.51.100.7", "10.9.9.1"),
}


# How resolver libraries ask: glibc, Go and c-ares connect their UDP sockets, musl binds one and sends from it, and all
# go to TCP for what was cut.
RESOLVERS = ("tcp connect", "udp sendto, bound", "udp sendmmsg", "udp connected", "udp connected, write")


def facts(speaker: Speaker, bed: Bed) -> Owner:
    """What /proc says of a speaker."""
    process = Path(f"/proc/{speaker.pid}")
    return Owner(
        pid=speaker.pid,
        start_time=int((process / "stat").read_text().rpartition(")")[2].split()[19]),  # field 22, proc(5)
        uid=process.stat().st_uid,
        exe=str((process / "exe").readlink()),
        argv=tuple((process / "cmdline").read_text().removesuffix("\0").split("\0")),
        cgroup="/" + bed.cgroup.name,
        comm=(process / "comm").read_text().rstrip("\n"),
        container="",
        image="",
    )
