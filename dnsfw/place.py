"""What is guarded, how, and by whom: what a supervisor decides before its first engine, and every engine is told.

Law: values, and the users of the engine and the proxy, who are looked up here.
"""

from __future__ import annotations

import pwd
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dnsfw.channel import Channel
from dnsfw.host.runs import STATE_ROOT
from dnsfw.journal.file import Rotation
from dnsfw.journal.shared import SharedLog
from dnsfw.lockdown.wanted import Lockdown
from dnsfw.machine.namespaces import NetworkNamespace
from dnsfw.machine.privilege import User
from policy import Limits
from resolver.listeners import Listeners
from resolver.upstreams import Upstream

QUEUE = 53  # an nfqueue number; each network namespace has 65,536 of its own
# Of systemd's range for dynamic users, so no account of the machine's own (systemd.io/UIDS-GIDS).
ENGINE_USER = User(61_853, 61_853, (), "dnsfw", "/", "/usr/sbin/nologin")
PROXY_USER = User(61_854, 61_854, (), "dnsfw-proxy", "/", "/usr/sbin/nologin")
_SYSTEM_USERS = range(1, 1000)  # login.defs(5), SYS_UID_MAX


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """What the command line and the configuration say of a guard; all of it checked later, by whom it concerns."""

    policy: Path | None
    audit: bool
    upstreams: tuple[Upstream, ...]
    journal: Path | None
    refused: bool
    quiet: bool
    repo: str = ""
    token: str = field(default="", repr=False)
    rotation: Rotation = field(default_factory=Rotation)
    limits: Limits = field(default_factory=Limits)
    metrics_port: int = 0
    install_ca: bool = False
    set_resolver: bool = False
    lockdown: Lockdown = field(default_factory=Lockdown)


@dataclass(frozen=True, slots=True)
class Place:
    """What is guarded: a network namespace of ours, or None for the host's; the cgroup whose sockets are attributed;
    the user who asked, and that user's environment; the run's directory; when it began, in seconds since the epoch."""

    network: NetworkNamespace | None
    cgroup: Path
    user: User
    environ: Mapping[str, str]
    directory: Path
    began: float

    def inside(self) -> AbstractContextManager[None]:
        """In the guarded network namespace."""
        return nullcontext() if self.network is None else self.network.entered()

    @property
    def furnished(self) -> Path:
        """What programs are to trust (proxy/trust.py)."""
        return self.directory / "trust"

    @property
    def shown(self) -> Path:
        """Where they see it: a namespace of ours has it in the place of the runs' own directories."""
        return self.furnished if self.network is None else STATE_ROOT


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything an engine needs to know, decided before it is forked. `user` is whom it becomes; `listeners` and
    `keeper`, the conversation with the proxy's keeper, are the supervisor's, and the next engine's too; `policy` is a
    descriptor of the one in force (dnsfw/policies/pinned.py), None for the first engine, which reads the file; `log` is
    where each engine leaves what it knows to the next; `wide` are listeners for those whom a guarded host forwards for;
    reports are signed with `seed`: 32 secret octets."""

    options: GuardOptions
    place: Place
    user: User
    listeners: Listeners
    keeper: Channel
    log: SharedLog
    policy: int | None = None
    wide: Listeners | None = None
    seed: bytes = field(default_factory=partial(secrets.token_bytes, 32), repr=False)

    def descriptors(self) -> list[int]:
        """All of them, for the child to keep."""
        sockets = self.listeners.sockets + (() if self.wide is None else self.wide.sockets)
        held = [self.keeper.fileno(), *(sock.fileno() for sock in sockets)]
        held += [] if self.place.network is None else [self.place.network.fd]
        return held + ([] if self.policy is None else [self.policy])


def engine_user() -> User:
    """The system user `dnsfw`, where one was made (`dnsfw install-service`); else one without an account. A person's
    account of that name is not meant: under `up` the engine's packets are not judged."""
    return _account_of(ENGINE_USER)


def proxy_user() -> User:
    """The system user `dnsfw-proxy`, likewise."""
    return _account_of(PROXY_USER)


def _account_of(user: User) -> User:
    try:
        entry = pwd.getpwnam(user.name)
    except KeyError:
        return user
    if entry.pw_uid not in _SYSTEM_USERS:
        return user
    return User(entry.pw_uid, entry.pw_gid, (), entry.pw_name, entry.pw_dir, entry.pw_shell)
