"""`dnsfw up`: guard the host itself.

Law: the same guard as `run`'s, in the network namespace that we were started in. While it is up nothing opens the host
but its end by a signal: a dead engine leaves everything closed, and so does our own death by SIGKILL.
"""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from dnsfw.channel import Serving
from dnsfw.errors import EXIT_SETUP
from dnsfw.host import runs
from dnsfw.host.notify import Notify, Watched
from dnsfw.lockdown.hold import Hold, require_first_mounts
from dnsfw.machine.cgroups import find_root
from dnsfw.machine.namespaces import network_namespace_id
from dnsfw.machine.privilege import calling_user
from dnsfw.machine.system import system_upstreams
from dnsfw.place import GuardOptions, Place
from dnsfw.supervisor.detaching import detach
from dnsfw.supervisor.starting import guarding
from dnsfw.supervisor.waiting import WAITED, held_back, until_told
from dnsfw.terminal import say, show

_SCRIPT = "environment.sh"  # for shells: the variables by which programs trust the proxy
LOG = "log"  # of a guard in the background, in its run's directory


def up(options: GuardOptions, environ: Mapping[str, str]) -> int:
    """Guard this host until a signal ends it; the exit status. Raises DnsfwError if it can't."""
    mode = " (audit: nothing is denied)" if options.audit else ""
    return _guard(options, environ, lambda _: say(f"guarding this host{mode}; Ctrl-C ends it."))


def up_detached(options: GuardOptions, environ: Mapping[str, str]) -> int:
    """The same in the background; returns once the host is guarded. Raises DnsfwError if it can't."""
    pid = detach(lambda in_force: _guard(options, environ, in_force))
    mode = " (audit: nothing is denied)" if options.audit else ""
    say(f"guarding this host{mode}, as process {pid}; `dnsfw down` ends it, `dnsfw status` tells how it is.")
    return 0


def _guard(options: GuardOptions, environ: Mapping[str, str], in_force: Callable[[Path], None]) -> int:
    user, notify = calling_user(environ), Notify(environ)
    with ExitStack() as stack:
        with held_back():
            record = stack.enter_context(runs.claimed(name()))
        if options.set_resolver:  # from then on resolv.conf names us, also to an engine that is started again
            options = replace(options, upstreams=options.upstreams or system_upstreams(guarding_host=True))
        place = Place(None, find_root(), user, environ, record.directory, time.time())
        starting = stack.enter_context(guarding(options, place))
        guard = starting.enforce()
        if options.lockdown.sudo and notify.managed:
            require_first_mounts()
        guard.lock_down(Hold(options.lockdown, record.directory, record.will_lock_down))
        if options.set_resolver:
            stack.enter_context(record.resolver_pointed_here())
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)  # tear-down is whole
        if guard.proxied is not None:
            _have_trusted(guard.proxied, record, place, install_ca=options.install_ca)
            _tell_how(place, install_ca=options.install_ca)
            guard.on_another_proxy = partial(_have_trusted, record=record, place=place, install_ca=options.install_ca)
        in_force(record.directory / LOG)
        notify.say("READY=1", f"STATUS={'audit: nothing is denied' if options.audit else 'enforcing'}")
        until_told(Watched(guard, notify))
        notify.say("STOPPING=1")
        finished = guard.finish()
        if finished is not None:
            record.leave_word(finished)
    if finished is None:
        return EXIT_SETUP
    if not options.quiet:
        show(finished.summary)
    return 0


def _have_trusted(proxied: Serving, record: runs.Run, place: Place, *, install_ca: bool) -> None:
    """Have programs trust the proxy, or make it easy to."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in proxied.variables.items()]
    script = place.furnished / _SCRIPT
    script.write_text("".join(lines), encoding="utf-8")
    script.chmod(0o644)
    if install_ca:
        record.install_anchor((place.furnished / "root.crt").read_bytes())


def _tell_how(place: Place, *, install_ca: bool) -> None:
    if not install_ca:
        say("URL rules: programs have to trust the proxy; --install-ca has them all do so.")
    say(f"for programs with roots of their own (Node, Java, Python's requests): . {place.furnished / _SCRIPT}")


def name() -> str:
    """One guard for each host: the record is named after the network namespace."""
    return f"up-{network_namespace_id()}"
