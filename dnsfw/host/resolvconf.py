"""The host's resolver configuration, pointed at us and given back.

Law: the files and their contents; says nothing to any service but systemd-resolved. What stood there is written down
before it is changed, where root alone reads it, so that who clears up after a SIGKILL (runs.py) can give it back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dnsfw.errors import SetupError

BACKUP = "resolv.conf.before"  # in the run's directory
_DROP_IN = "[Resolve]\n# Made by dnsfw; gone when the guard is.\nDNS=127.0.0.1\nDomains=~.\n"
_RESTARTED_WITHIN = 10.0
_MOUNTS = Path("/proc/self/mountinfo")


class Before(msgspec.Struct, frozen=True):
    """What stood at /etc/resolv.conf: a link's target, or a file's text and mode; both None where there was nothing."""

    link: str | None = None
    text: bytes | None = None
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Host:
    """Where a host has these files: `root` is / but in tests."""

    root: Path = Path("/")

    @property
    def resolv_conf(self) -> Path:
        return self.root / "etc/resolv.conf"

    @property
    def drop_in(self) -> Path:
        return self.root / "run/systemd/resolved.conf.d/dnsfw.conf"

    def has_resolved(self) -> bool:
        """Does systemd-resolved run here? Its folder is there as long (systemd-resolved(8))."""
        return (self.root / "run/systemd/resolve").is_dir()


def guarded_resolv_conf(before: str) -> str:
    """A resolv.conf's search list and options, naming loopback as the only server.

    Which server is asked makes no difference to dnsfw; this one can always be sent to, whatever the host's is.
    """
    kept = [line for line in before.splitlines() if line.split(None, 1)[:1] in (["search"], ["domain"], ["options"])]
    return "\n".join(["# Made by dnsfw.", "nameserver 127.0.0.1", *kept, ""])


@contextmanager
def pointed_here(directory: Path, host: Host = Host()) -> Iterator[None]:
    """resolv.conf and systemd-resolved name us until exit. `directory` is the run's own. Raises SetupError."""
    before = _read(host.resolv_conf)
    (directory / BACKUP).write_bytes(msgspec.json.encode(before))  # the directory is root's alone
    try:
        _point(host, before)
        yield
    finally:
        give_back(directory, host)


def give_back(directory: Path, host: Host = Host()) -> None:
    """Put back what `pointed_here` found; harmless twice, and where it found nothing to do."""
    backup = directory / BACKUP
    try:
        before = msgspec.json.decode(backup.read_bytes(), type=Before)
    except FileNotFoundError:
        return
    except msgspec.MsgspecError:  # we died while it was written, so nothing was changed yet
        backup.unlink()
        return
    _put(host.resolv_conf, before)
    if host.drop_in.exists():
        host.drop_in.unlink()
        _restart_resolved(host)
    backup.unlink()


def _point(host: Host, before: Before) -> None:
    text = (before.text or b"").decode(errors="replace")
    if before.link is not None and host.resolv_conf.exists():
        text = host.resolv_conf.read_text(encoding="utf-8", errors="replace")
    _put(host.resolv_conf, Before(text=guarded_resolv_conf(text).encode()))
    if host.has_resolved():
        host.drop_in.parent.mkdir(parents=True, exist_ok=True)
        host.drop_in.write_text(_DROP_IN, encoding="ascii")
        _restart_resolved(host)


def _read(path: Path) -> Before:
    try:
        if path.is_symlink():
            return Before(link=str(path.readlink()))
        return Before(text=path.read_bytes(), mode=path.stat().st_mode & 0o777)
    except FileNotFoundError:
        return Before()
    except OSError as error:
        raise SetupError(f"{path} can't be read: {error.strerror}.") from error


def _put(path: Path, wanted: Before) -> None:
    """At once, so that no reader ever finds half of it; but what is mounted there can only be written over."""
    partial = path.with_name(".resolv.conf.dnsfw")
    try:
        if wanted.text is not None and _is_mounted(path):
            path.write_bytes(wanted.text)
        elif wanted.text is None and wanted.link is None:
            path.unlink(missing_ok=True)
        else:
            _make(partial, wanted)
            partial.replace(path)
    except OSError as error:
        raise SetupError(f"{path} can't be written: {error.strerror}.") from error


def _make(path: Path, wanted: Before) -> None:
    path.unlink(missing_ok=True)
    if wanted.link is not None:
        path.symlink_to(wanted.link)
    else:
        path.write_bytes(wanted.text or b"")
        path.chmod(wanted.mode)


def _is_mounted(path: Path) -> bool:
    """A container's engine mounts a file there (proc_pid_mountinfo(5), field 5)."""
    lines = _MOUNTS.read_bytes().splitlines()  # of users' own mounts, some octets are their choice
    return any(line.split(b" ")[4:5] == [os.fsencode(path)] for line in lines)


def _restart_resolved(host: Host) -> None:
    """It reads its configuration at its start alone. Where there is no systemctl(1) nobody runs it."""
    program = shutil.which("systemctl")
    if program is None or host.root != Path("/"):
        return
    command = [program, "try-restart", "systemd-resolved.service"]
    subprocess.run(command, capture_output=True, timeout=_RESTARTED_WITHIN, check=False)
