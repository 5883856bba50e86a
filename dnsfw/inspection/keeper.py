"""The proxy's keeper: it makes what outlives a proxy, and starts one proxy after the other.

Law: a process of its own between the supervisor and the proxies, so that neither of them waits for the other. It
makes the authority, furnishes what programs are to trust, and gives up all privilege; from then on it forks and waits,
and reads nothing. It is PID 1 of a namespace: its proxies can't harm it, and end with it.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from dnsfw.channel import Channel, Failed, Serving, Turned
from dnsfw.errors import EXIT_SETUP
from dnsfw.inspection.confinement import ROOTS, confine, confine_calls
from dnsfw.journal.lifecycle import Life, Turn
from dnsfw.machine.child import in_words
from dnsfw.machine.privilege import User, acting_as, die_with_parent
from dnsfw.place import Place
from dnsfw.restarts import Pace, Restarts
from proxy import trust
from proxy.authority import Authority, AuthorityError, make_authority
from proxy.process import ProxyConfig, run

_REMEDIES: dict[type, str] = {
    AuthorityError: "Name fewer hosts, or a wildcard above them.",
    trust.TrustError: "Install the package ca-certificates.",
}
_PACE = Pace(first=0.02, longest=0.5)
_LARGEST = 16 << 20  # octets of a bundle that a variable names


@dataclass(frozen=True, slots=True)
class KeeperConfig:
    """`hosts` are the names that are inspected, `listeners` the proxies' sockets, `engine` and `supervisor` our ends of
    the conversations; `before` is the death of the keeper before this one, if that is why there is another."""

    hosts: tuple[str, ...]
    listeners: tuple[socket.socket, ...]
    engine: Channel
    supervisor: Channel
    place: Place
    before: Life | None = None


def keep(config: KeeperConfig) -> int:
    """A keeper's whole life; its exit status if it can't begin."""
    if config.before is not None:
        _tell(config.engine, Turned(config.before))
    try:
        authority, serving = _prepare(config)
    except (AuthorityError, trust.TrustError, OSError) as error:
        remedy = _REMEDIES.get(type(error), "")
        config.supervisor.send(Failed(f"Rules with URLs can't be enforced: {error}.", remedy, EXIT_SETUP))
        return EXIT_SETUP
    die_with_parent()
    gc.freeze()  # what proxies share with us, they needn't copy
    restarts = Restarts(_PACE)
    while not _is_alone(config.supervisor):  # it may have died before we asked to die with it
        _start_and_wait(config, authority, restarts, serving)
    return 0


def _is_alone(supervisor: Channel) -> bool:
    try:
        return supervisor.receive(patience=0) is None
    except TimeoutError:
        return False


def _prepare(config: KeeperConfig) -> tuple[Authority, Serving]:
    """All that wants root. Raises AuthorityError, TrustError, OSError."""
    os.umask(0o022)
    store = trust.system_store()
    roots = store.bundle.read_bytes()
    authority = make_authority(config.hosts, datetime.now(UTC))
    furnished = config.place.furnished
    variables = _furnish(config.place, store, authority, roots)
    confine(roots, furnished)
    views = tuple((str(source), str(target)) for source, target in store.views(furnished))
    return authority, Serving(dict(variables), views)


def _furnish(place: Place, store: trust.SystemStore, authority: Authority, roots: bytes) -> Mapping[str, str]:
    """The variables that a program needs besides."""
    environ, shown = place.environ, place.shown
    planned = trust.plan(authority.root_pem, roots, environ, shown, _reader(place.user))
    if "JAVA_HOME" in environ or shutil.which("java", path=environ.get("PATH")):
        planned = trust.for_java(planned, environ, shown)
    trust.furnish(place.furnished, planned, store, authority)
    return planned.variables


def _reader(user: User) -> Callable[[str], bytes | None]:
    """Reads a bundle, or a directory of them, as the caller may: variables are the caller's words."""

    def read(named: str) -> bytes | None:
        path = Path(named)
        with acting_as(user), suppress(OSError):
            if path.is_dir():
                return trust.joined(*(_bounded(file) for file in sorted(path.glob("*.[0-9]"))))
            if path.is_file():
                return _bounded(path)
        return None

    return read


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST)


def _start_and_wait(config: KeeperConfig, authority: Authority, restarts: Restarts, serving: Serving) -> None:
    """One proxy, to its end and the pause after it."""
    restarts.started(time.monotonic())
    pid = os.fork()
    if pid == 0:
        _be_the_proxy(config, authority, restarts, serving)
    _, status = os.waitpid(pid, 0)
    how = in_words(os.waitstatus_to_exitcode(status))
    pause = restarts.died(how, time.monotonic())
    _tell(config.engine, Turned(Life(Turn.DIED, time.time(), "proxy", how)))
    if restarts.total == 1:  # heard if none has served yet
        _tell(config.supervisor, Failed(f"The proxy died while starting ({how}).", "", EXIT_SETUP))
    time.sleep(pause)


def _tell(channel: Channel, message: Failed | Turned) -> None:
    """If anybody listens: engines die, too, and the next one reads what waits."""
    with suppress(OSError):
        channel.send(message)


def _be_the_proxy(config: KeeperConfig, authority: Authority, restarts: Restarts, serving: Serving) -> NoReturn:
    status = EXIT_SETUP
    try:
        (gate, gates), (lending, lenders) = socket.socketpair(), socket.socketpair(type=socket.SOCK_SEQPACKET)
        life = Life(Turn.RESTARTED if restarts.total else Turn.STARTED, time.time(), "proxy", restarts.reason)

        def ready() -> None:
            config.engine.send(Turned(life), [gates.fileno(), lenders.fileno()])
            gates.close()
            lenders.close()
            if life.turn is Turn.STARTED:
                config.supervisor.send(serving)

        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        confine_calls()
        status = run(ProxyConfig(config.listeners, gate, authority, ROOTS, lending=lending), ready)
    except BaseException:  # noqa: BLE001 - the child's last frame; what it prints is all that is known
        traceback.print_exc()
    finally:
        os._exit(status)
