"""What runs inside the guard: does one thing a line, as a program would, and says what came of it.

Law: the standard library alone, for whatever Python 3 the machine has; started by `inside.py`, which sends this text.
Every probe is a function of JSON values that returns one; an OSError becomes its name.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_kept: dict[str, socket.socket] = {}  # connections that outlive a probe, by the test's own word


def ready() -> bool:
    """Answers: the guard is up, and the command runs."""
    return True


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _word(error: OSError) -> str:
    return "timeout" if isinstance(error, TimeoutError) and not error.errno else errno.errorcode[error.errno or 0]


def _timed(began: float, outcome: str, reply: str = "") -> dict[str, Any]:
    return {"outcome": outcome, "ms": (time.monotonic() - began) * 1000, "reply": reply}


def tcp(address: str, port: int, say: str = "", patience: float = 3.0, keep: str = "") -> dict[str, Any]:
    """Connect, say something, hear what comes back: `outcome` is open or the error, `ms` the time it took."""
    began = time.monotonic()
    sock = socket.socket(_family(address), socket.SOCK_STREAM)
    sock.settimeout(patience)
    try:
        sock.connect((address, port))
        done = _timed(began, "open")
        done["port"] = sock.getsockname()[1]
        done["reply"] = _converse(sock, say)
        if keep:
            _kept[keep] = sock
    except OSError as error:
        done = _timed(began, _word(error))
    if keep not in _kept:
        sock.close()
    return done


def again(keep: str, say: str) -> str:
    """Say something more on a connection that `tcp` kept; the reply, or the error."""
    try:
        return _converse(_kept[keep], say)
    except OSError as error:
        return _word(error)


def _converse(sock: socket.socket, say: str) -> str:
    """Servers here echo, or acknowledge in two letters."""
    if not say:
        return ""
    sock.sendall(say.encode())
    return sock.recv(65536).decode(errors="replace")


def udp(address: str, port: int, say: str = "", *, connected: bool = True, patience: float = 1.0) -> dict[str, Any]:
    """One datagram and its reply."""
    began = time.monotonic()
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
        sock.settimeout(patience)
        try:
            if connected:
                sock.connect((address, port))
                sock.send(say.encode())
            else:
                sock.sendto(say.encode(), (address, port))
            return _timed(began, "answered", sock.recv(65536).decode(errors="replace"))
        except OSError as error:
            return _timed(began, _word(error))


def dns(address: str, way: str, question: str, patience: float = 8.0) -> dict[str, Any]:
    """`question` and the answer are messages in hexadecimal."""
    data = bytes.fromhex(question)
    began = time.monotonic()
    with socket.socket(_family(address), socket.SOCK_DGRAM if way == "udp" else socket.SOCK_STREAM) as sock:
        sock.settimeout(patience)
        try:
            sock.connect((address, 53))
            sock.sendall(data if way == "udp" else len(data).to_bytes(2, "big") + data)
            return _timed(began, "answered", (sock.recv(65536) if way == "udp" else _message(sock)).hex())
        except OSError as error:
            return _timed(began, _word(error))


def ping(address: str, patience: float = 1.0) -> dict[str, Any]:
    """An echo by a socket that needs no privilege (icmp(7)), and its reply."""
    v6 = ":" in address
    began = time.monotonic()
    try:
        with socket.socket(_family(address), socket.SOCK_DGRAM, 58 if v6 else 1) as sock:
            sock.settimeout(patience)
            sock.connect((address, 0))
            sock.send(bytes([128 if v6 else 8, 0, 0, 0, 0, 0, 0, 1]) + b"hello")
            return _timed(began, "answered", sock.recv(100)[8:].decode())
    except OSError as error:
        return _timed(began, _word(error))


def _message(sock: socket.socket) -> bytes:
    with sock.makefile("rb") as stream:
        return stream.read(int.from_bytes(stream.read(2), "big"))


def fetch(url: str, method: str = "GET", patience: float = 5.0) -> dict[str, Any]:
    """One request, trusting whom programs trust here: the status and the body, or in the place of both the error."""
    began = time.monotonic()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=patience) as answer:
            return _timed(began, str(answer.status), answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        with error:
            return _timed(began, str(error.code), error.read().decode(errors="replace"))
    except urllib.error.URLError as error:
        known = isinstance(error.reason, OSError) and error.reason.errno in errno.errorcode
        return _timed(began, _word(error.reason) if known else str(error.reason))  # type: ignore[arg-type]  # known
    except OSError as error:
        return _timed(began, _word(error))


def race(names: list[list[str]], port: int) -> list[list[str]]:
    """Resolve each name for its family and connect at once to what it is said to be; those where that failed."""
    failed = []
    for name, family in names:
        try:
            found = socket.getaddrinfo(name, port, family=getattr(socket, family), type=socket.SOCK_STREAM)
            socket.create_connection(found[0][4][:2], 3).close()  # type: ignore[arg-type]  # no AF_UNIX here
        except OSError as error:
            failed.append([name, str(error)])
    return failed


def resolve(name: str) -> list[str] | str:
    """The addresses, sorted, or the resolver's complaint."""
    try:
        return sorted({str(place[4][0]) for place in socket.getaddrinfo(name, 1, type=socket.SOCK_STREAM)})
    except socket.gaierror as error:
        return str(error)


def may_open(family: str, kind: str, proto: int = 0) -> str:
    """Such a socket can be made: "", or why not."""
    try:
        socket.socket(getattr(socket, family), getattr(socket, kind), proto).close()
    except OSError as error:
        return _word(error)
    return ""


def unix(path: str) -> str:
    """A Unix socket is there and takes connections: "", or why not. A leading @ is an abstract one."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)
        except OSError as error:
            return _word(error)
    return ""


def run(*command: str) -> dict[str, Any]:
    """A child's exit status and what it said."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    return {"status": done.returncode, "out": done.stdout, "err": done.stderr}


def read(path: str) -> str:
    """A file's text, or why it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return _word(error)


def put(path: str, text: str) -> str:
    """A file can be written: "", or why not."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        return _word(error)
    return ""


def names(path: str) -> list[str]:
    """What is in a folder."""
    return os.listdir(path)  # noqa: PTH208 - names are what is asked for


def enter(path: str) -> str:
    """setns(2) into the namespace at `path`: "", or why not."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        return _word(error)
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.setns(descriptor, 0)
    os.close(descriptor)
    return errno.errorcode[ctypes.get_errno()] if failed else ""


def who() -> dict[str, Any]:
    """Whom the kernel takes us for."""
    return {"uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "environ": dict(os.environ)}


def main() -> None:
    for line in sys.stdin:
        probe, positional, named = json.loads(line)
        print(json.dumps(globals()[probe](*positional, **named)), flush=True)


main()
