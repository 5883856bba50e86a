"""How an engine begins: what it is given by the supervisor and by those before it, and what it gives in turn.

Law: functions of the engine's birth, each called once, as root.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

from bpf.errors import BpfError
from bpf.loader import Attached, take_over
from dnsfw.channel import Channel, Inheritance, Listening
from dnsfw.control.answers import Identity
from dnsfw.control.messages import Lives
from dnsfw.engine.packets import Packets
from dnsfw.errors import SetupError
from dnsfw.journal.lifecycle import Gap
from dnsfw.journal.records import rfc3339
from dnsfw.place import QUEUE, EngineConfig
from dnsfw.policies import pinned
from dnsfw.policies.pinned import Pinned
from dnsfw.policies.reading import Loaded, Surroundings, load_policy, pinned_policy
from policy.inspected import inspected

_HANDED_OVER_WITHIN = 30.0  # seconds
_QUEUE_FREE_WITHIN = 3.0  # a killed guard's engine holds it for as long as it writes its journal down


def packets(stack: ExitStack) -> Packets:
    """The queue of the network namespace that is current. Raises SetupError."""
    until = time.monotonic() + _QUEUE_FREE_WITHIN
    while True:
        try:
            return stack.enter_context(Packets(QUEUE))
        except OSError as error:
            if time.monotonic() > until:
                raise SetupError(
                    f"Packet queue {QUEUE} can't be had ({error}): another program judges packets here.",
                    "See which one: /proc/net/netfilter/nfnetlink_queue has its port id.",
                ) from error
            time.sleep(0.02)


def identity(config: EngineConfig, inheritance: Inheritance) -> Identity:
    """What the guard is, and whether it was ever down: with the gap that ends now."""
    place, audit = config.place, config.options.audit
    death = inheritance.last_death
    lives, gaps = Lives(), inheritance.gaps
    if death is not None:
        lives = Lives(inheritance.deaths, rfc3339(death.when), death.reason)
        gaps = (*gaps, Gap(death.reason, time.time() - inheritance.down_since, not audit))
    return Identity(place.directory.name, audit, place.network is None, place.began, lives, gaps, config.seed)


def policy(config: EngineConfig) -> Loaded:
    """The first engine reads the file, once; those after it take what that one read. Raises UsageError."""
    options, place = config.options, config.place
    kept = None if config.policy is None else pinned.read(config.policy)
    if isinstance(kept, Pinned):
        return pinned_policy(kept)
    return load_policy(options.policy, Surroundings(place.environ, place.user, options.repo))


def say_listening(channel: Channel, loaded: Loaded, *, first: bool) -> None:
    """The first engine has read the policy, and gives it to the supervisor for the next ones."""
    if not first:
        channel.send(Listening())
        return
    paper = pinned.paper()
    pinned.write(loaded.pinned, paper)
    channel.send(Listening(inspected(loaded.policy)), [paper])
    os.close(paper)


def inherit(channel: Channel) -> Inheritance:
    """Raises ConnectionError where the supervisor is gone."""
    message = channel.receive(_HANDED_OVER_WITHIN)
    if not isinstance(message, Inheritance):
        raise ConnectionResetError
    return message


def programs(channel: Channel, stack: ExitStack) -> Attached | None:
    """From the supervisor, which has them compiled; None if they couldn't be. Raises SetupError."""
    descriptors = channel.descriptors()
    try:
        return stack.enter_context(take_over(descriptors)) if descriptors else None
    except BpfError as error:
        raise SetupError("Sockets can't be attributed to processes: " + str(error)) from error
