"""What runs leave on the host while they live, written down so that a later start can take it back.

Law: one directory a run under the state root, with a lock that its process holds and a record of what outlives a
SIGKILL (the cgroup, the host's sysctls). A run whose lock is free is dead, and is swept.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from dnsfw.channel import Finished
from dnsfw.errors import SetupError
from dnsfw.host import anchor, forwarding, resolvconf
from dnsfw.lockdown.wanted import Undo
from dnsfw.machine import cgroups
from dnsfw.machine.namespaces import network_namespace_id

STATE_ROOT = Path("/run/dnsfw")
_SYSCTL_ROOT = Path("/proc/sys")
_LAST_WORD = "last-word"
_PASSABLE = 0o711  # who started a guard reaches its control socket; nobody but root can hold a lock


class Record(msgspec.Struct, frozen=True):
    """`netns` is the inode of the network namespace whose sysctls were changed; `sysctls` maps name to old value;
    `links` are the interfaces that were there then; `forward` are the families whose forward filter lets ours pass;
    `anchor` is the file by which the host trusts the proxy; `lockdown` is what users were denied."""

    netns: int
    cgroup: str = ""
    sysctls: dict[str, str] = {}
    forward: tuple[str, ...] = ()
    links: list[str] = []
    anchor: str = ""
    lockdown: Undo = Undo()


class Run:
    """This process's own run: its directory, and the record that grows as the host is changed."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.directory = root / name
        self.record = Record(network_namespace_id())
        self._root = root

    def _save(self, record: Record) -> None:
        self.record = record
        partial = self.directory / "record.new"
        partial.touch(mode=0o600)
        partial.write_bytes(msgspec.json.encode(record))
        partial.replace(self.directory / "record")

    def leave_word(self, finished: Finished) -> None:
        """For who had us end, if they wait for it (`listening`)."""
        with suppress(OSError):
            file = os.open(self.directory / _LAST_WORD, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            with os.fdopen(file, "wb") as word:
                word.write(msgspec.json.encode(finished))

    def will_make_cgroup(self, directory: Path) -> None:
        """Write the cgroup down before it is made."""
        self._save(msgspec.structs.replace(self.record, cgroup=str(directory)))

    @contextmanager
    def resolver_pointed_here(self) -> Iterator[None]:
        """The host's resolv.conf names us until exit; after a SIGKILL, until the next sweep. Raises SetupError."""
        self._save(self.record)  # whose host it is
        with resolvconf.pointed_here(self.directory):
            yield

    def install_anchor(self, root: bytes) -> None:
        """Write down that the host is to trust `root` (PEM), then see to it. Raises SetupError."""
        file = anchor.place(self.name)
        self._save(msgspec.structs.replace(self.record, anchor=str(file)))
        anchor.install(file, root)

    def permit_forwarding(self, link: str, families: tuple[str, ...]) -> None:
        """Write down that the host's forward filter is told of `link` (this run's name), then tell it."""
        self._save(msgspec.structs.replace(self.record, forward=families))
        forwarding.permit(link, families)

    def will_lock_down(self, undo: Undo) -> None:
        """Write a measure down before it is taken."""
        self._save(msgspec.structs.replace(self.record, lockdown=undo))

    def set_sysctls(self, wanted: Iterable[tuple[str, str]]) -> bool:
        """Set what isn't so already; True if anything changed or another live run changed it. Raises SetupError."""
        with _locked(self._root):
            others = [record for _, record in _live(self._root, self) if record.netns == self.record.netns]
            changed: dict[str, str] = {}
            for name, value in wanted:
                inherited = next((record.sysctls[name] for record in others if name in record.sysctls), None)
                now = (_SYSCTL_ROOT / name).read_text(encoding="ascii").strip()
                if inherited is not None or now != value:
                    changed[name] = now if inherited is None else inherited
            self._save(msgspec.structs.replace(self.record, sysctls=changed, links=sorted(_links())))
            for name, value in wanted:
                if name in changed:
                    _write_sysctl(name, value)
            return bool(changed)


@contextmanager
def claimed(name: str, root: Path = STATE_ROOT) -> Iterator[Run]:
    """A run of our own, its lock held until exit; dead runs are swept first. Raises SetupError."""
    with _locked(root):
        _sweep(root)
        run = Run(root, name)
        try:
            run.directory.mkdir()
            run.directory.chmod(_PASSABLE)
        except FileExistsError:
            raise SetupError("A dnsfw up guards this host already.", "End that one first: dnsfw down") from None
        lock = os.open(run.directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, str(os.getpid()).encode())
    try:
        yield run
    finally:
        with _locked(root):
            _take_back(root, run.directory, run.record)
            os.close(lock)
            with suppress(OSError):  # other runs are still there
                root.rmdir()


def holder(name: str, root: Path = STATE_ROOT) -> int | None:
    """The pid of the live run of that name."""
    if not _alive(root / name):
        return None
    with suppress(OSError, ValueError):
        return int((root / name / "lock").read_text(encoding="ascii"))
    return None


@contextmanager
def listening(name: str, root: Path = STATE_ROOT) -> Iterator[Callable[[], Finished | None]]:
    """Wait for the last word of the live run of that name, which is heard when it has ended. The file is open here
    before it is written, so that it may be gone by then with its directory."""
    try:
        file = os.open(root / name / _LAST_WORD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # it has just ended
        yield lambda: None
        return
    with os.fdopen(file, "rb") as word:

        def last_word() -> Finished | None:
            word.seek(0)
            try:
                return msgspec.json.decode(word.read(), type=Finished)
            except msgspec.MsgspecError:  # it didn't say
                return None

        yield last_word


def is_live(name: str, root: Path = STATE_ROOT) -> bool:
    """Is there a run of this name, and is its process alive?"""
    return _alive(root / name)


def _sweep(root: Path) -> None:
    """Take back what dead runs left. One whose network namespace lives elsewhere waits for a sweep from there."""
    for directory in list(_directories(root)):
        record = _read(directory)
        if not _alive(directory) and (record is None or _ours_or_gone(record.netns)):
            _take_back(root, directory, record)


def _take_back(root: Path, directory: Path, record: Record | None) -> None:
    if record is not None:
        _give_back(record.lockdown)
        if record.cgroup:
            cgroups.remove(Path(record.cgroup))
        _restore_sysctls(root, directory, record)
        if record.netns == network_namespace_id():
            forwarding.withdraw(directory.name, record.forward)
            resolvconf.give_back(directory)
        if record.anchor:
            anchor.remove(Path(record.anchor))
    shutil.rmtree(directory, ignore_errors=True)


def _give_back(undo: Undo) -> None:
    """What lockdown took from users."""
    if undo != Undo():
        from dnsfw.lockdown.hold import take_back  # noqa: PLC0415 - few guards take anything

        take_back(undo)


def _restore_sysctls(root: Path, directory: Path, record: Record) -> None:
    if record.netns != network_namespace_id():
        return
    needed = {
        name
        for other, live in _live(root)
        if other != directory and live.netns == record.netns
        for name in live.sysctls
    }
    grown = _links() - set(record.links)
    for name, value in record.sysctls.items():
        # Interfaces that appeared meanwhile (a container engine's bridge) may count on forwarding by now.
        if name not in needed and not grown:
            _write_sysctl(name, value)


def _write_sysctl(name: str, value: str) -> None:
    try:
        (_SYSCTL_ROOT / name).write_text(value, encoding="ascii")
    except FileNotFoundError:
        return  # the interface it belonged to is gone
    except OSError as error:
        raise SetupError(f"The sysctl {name.replace('/', '.')} can't be set to {value}: {error.strerror}.") from error


def _links() -> set[str]:
    """This network namespace's interfaces, other runs' uplinks left out."""
    return {name for _, name in socket.if_nameindex() if not name.startswith("dnsfw")}


def _directories(root: Path) -> Iterator[Path]:
    return (path for path in root.iterdir() if path.is_dir())


def _live(root: Path, but: Run | None = None) -> Iterator[tuple[Path, Record]]:
    for directory in _directories(root):
        record = _read(directory)
        if record is not None and _alive(directory) and (but is None or directory != but.directory):
            yield directory, record


def _read(directory: Path) -> Record | None:
    try:
        return msgspec.json.decode((directory / "record").read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None  # died before it changed anything


def _alive(directory: Path) -> bool:
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def _ours_or_gone(netns: int) -> bool:
    return netns == network_namespace_id() or netns not in _network_namespaces()


def _network_namespaces() -> set[int]:
    """The inodes of all network namespaces that a process is in or a name is mounted for."""
    found = set()
    for path in (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/run/netns").glob("*")):
        with suppress(OSError):  # the process ended meanwhile
            found.add(path.stat().st_ino)
    return found


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One at a time: claims, sweeps and changes to shared sysctls. The lock is on the state root itself, so that
    nothing is left when the last run removes it."""
    while True:
        try:
            root.mkdir(parents=True, exist_ok=True)
            root.chmod(_PASSABLE)
            lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SetupError(f"{root} can't be made: {error.strerror}.", "dnsfw keeps its state there.") from error
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.exists() and os.fstat(lock).st_ino == root.stat().st_ino:
            break
        os.close(lock)  # the last run removed it while we waited
    try:
        yield
    finally:
        os.close(lock)
