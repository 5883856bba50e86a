"""`dnsfw run`: guard one command.

Law: the supervisor. It owns every kernel object through a context manager, starts the engine and the command, passes
signals on, and parses nothing that comes from outside.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dnsfw.errors import EXIT_DENIED, EXIT_SETUP
from dnsfw.host.forwarding import restricted_families
from dnsfw.host.resolvconf import guarded_resolv_conf
from dnsfw.host.runs import Run, claimed
from dnsfw.host.uplink import choose_link, forwarding_sysctls, read_host, uplink
from dnsfw.machine import cgroups, command
from dnsfw.machine.namespaces import NetworkNamespace
from dnsfw.machine.privilege import User, calling_user
from dnsfw.place import GuardOptions, Place
from dnsfw.supervisor.starting import guarding
from dnsfw.supervisor.waiting import WAITED, held_back, supervise
from dnsfw.terminal import complain, show

_RESOLV_CONF = Path("/etc/resolv.conf")
_PING_GROUPS = Path("/proc/sys/net/ipv4/ping_group_range")


def run(options: GuardOptions, argv: Sequence[str], environ: Mapping[str, str], *, fail_on_deny: bool) -> int:
    """Guard `argv` until it ends; the exit status for our caller. Raises DnsfwError before the command has started."""
    user = calling_user(environ)
    descriptors = command.open_descriptors()  # while there are none but our caller's
    with ExitStack() as stack:
        name = f"dnsfw-{secrets.token_hex(3)}"
        with held_back():
            record = stack.enter_context(claimed(name))
        record.will_make_cgroup(cgroups.place(name))
        cgroup = stack.enter_context(cgroups.cgroup(name))
        network = stack.enter_context(NetworkNamespace())
        _let_ping_who_may(network)
        place = Place(network, cgroup, user, environ, record.directory, time.time())
        starting = stack.enter_context(guarding(options, place))
        stack.enter_context(_connected(record, network))
        guard = starting.enforce()
        environment = _environment(environ, user)
        views: tuple[tuple[str, str], ...] = ()
        if guard.proxied is not None:
            environment |= guard.proxied.variables
            views = (*guard.proxied.views, (str(place.furnished), str(place.shown)))
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)  # from here on they are the command's, and tear-down is whole
        resolv_conf = _resolv_conf(record)
        pid = command.start(command.Command(argv, environment, user, network, cgroup, resolv_conf, descriptors, views))
        status = supervise(pid, guard)
        finished = guard.finish()
    if finished is None:
        complain(f"the command ended without an engine ({guard.restarts.reason}); nothing could leave any more.")
        return EXIT_SETUP
    if not options.quiet:
        show(finished.summary)
    return EXIT_DENIED if fail_on_deny and finished.denied and status == 0 else status


def _let_ping_who_may(network: NetworkNamespace) -> None:
    """Who may make ping sockets on the host may do so inside (icmp(7)): an echo is judged like all else."""
    groups = _PING_GROUPS.read_text(encoding="ascii")
    with network.entered(), suppress(OSError):  # a range that our user namespace has no names for stays closed
        _PING_GROUPS.write_text(groups, encoding="ascii")


@contextmanager
def _connected(record: Run, network: NetworkNamespace) -> Iterator[None]:
    """The uplink, and the host's sysctls that it needs."""
    host = read_host()
    link = choose_link(record.name, secrets.randbits(16), host.taken, host.uplink_mtu())
    per_interface = Path("/proc/sys/net/ipv6/conf/lo/force_forwarding").exists()
    opened = record.set_sysctls(forwarding_sysctls(host, per_interface_v6=per_interface))
    closed = [name for name in host.mtu if not name.startswith("dnsfw")] if opened else []
    with uplink(link, network, closed) as nft:
        record.permit_forwarding(link.name, restricted_families(nft))
        yield


def _resolv_conf(record: Run) -> Path:
    """The file that the command sees as /etc/resolv.conf."""
    host = _RESOLV_CONF.read_text(encoding="utf-8", errors="replace") if _RESOLV_CONF.exists() else ""
    made = record.directory / "resolv.conf"
    made.write_text(guarded_resolv_conf(host), encoding="utf-8")
    made.chmod(0o644)
    return made


def _environment(environ: Mapping[str, str], user: User) -> dict[str, str]:
    """The caller's, as the caller's own: what sudo(8) said about root is taken back."""
    if "SUDO_UID" not in environ or user.uid == os.getuid():
        return dict(environ)
    kept = {name: value for name, value in environ.items() if not name.startswith("SUDO_") and name != "MAIL"}
    return {**kept, **user.environment()}
