"""The engine: resolver, queue and gate in one process and one event loop.

Law: composition only. It is born root to bind its sockets in the guarded network namespace, then keeps a user id and
capabilities that only serve verdicts, attribution and map look-ups. It makes no kernel object that outlives it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bpf.loader import start_loading
from bpf.owners import Owners
from dnsfw.channel import Channel, Failed, Finish, Finished, Listening, Ready
from dnsfw.errors import DnsfwError
from dnsfw.gate import Gate
from dnsfw.journal import Entry, Journal
from dnsfw.namespaces import NetworkNamespace
from dnsfw.policies import load_policy
from dnsfw.privilege import Capability, User, become, undumpable
from dnsfw.tally import Tally, summary
from firewall.queue import Queue
from policy import Bindings, Policy
from resolver.server import Resolver, ResolverConfig, make_listeners

QUEUE = 53  # an nfqueue number; each network namespace has its own 65,536
_RESOLVER_PORTS = range(53053, 53085)  # the first free one
_LOADING_SECONDS = 20.0
_KEPT = (Capability.NET_ADMIN, Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH, Capability.BPF)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything an engine needs to know, decided before it is forked. `network` is the guarded namespace, None for
    the one we are in; `user` is who it becomes, `owner` whose the journal is."""

    policy: Path | None
    resolver: ResolverConfig
    journal: Path | None
    audit: bool
    cgroup: Path
    network: NetworkNamespace | None
    user: User
    journal_owner: User


def run(config: EngineConfig, channel: Channel) -> int:
    """The engine's whole life; its exit status. The other end of `channel` is told why it can't start."""
    try:
        with ExitStack() as stack:
            engine = _assemble(config, channel, stack)
            asyncio.run(engine.serve(), loop_factory=asyncio.SelectorEventLoop)
    except DnsfwError as error:
        channel.send(Failed(error.problem, error.remedy, error.exit_status))
        return error.exit_status
    return 0


def _assemble(config: EngineConfig, channel: Channel, stack: ExitStack) -> Engine:
    """Bind everything while we are root, then stop being it."""
    loading = start_loading(config.cgroup)  # compiles while we go on
    stack.callback(loading.close)
    policy = load_policy(config.policy)
    journal = stack.enter_context(Journal(config.journal, config.audit, config.journal_owner))
    ...
