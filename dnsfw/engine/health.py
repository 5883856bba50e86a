"""Does the guard do what it is there for? Asked of itself, by trying.

Law: chooses what to try, and judges what came of it. A denial counts only if the gate took it: a name that does not
exist and a place that nobody answers from prove nothing. What is tried is journalled and in no other count.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator

import msgspec

from dnsfw.channel import Probe
from dnsfw.control.messages import Check, HealthReport
from dnsfw.engine.gate import Gate
from dnsfw.engine.probe import Probed
from dnsfw.errors import DnsfwError
from dnsfw.journal.records import Entry
from policy import Action, Decision, Flow, Kind, Policy, Proto, Query, address, decide, resolvable
from policy.names import Pattern

_PATIENCE = 25.0  # seconds: more than a probe takes
_NOWHERE = ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1")  # documentation (RFC 5737, RFC 3849)
_FROM = address("192.0.2.2")
_BLOCKED = ("ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EACCES", "EPERM")


class Health:
    """`ask` has the supervisor try something and write what came of it to a descriptor."""

    def __init__(self, gate: Gate, ask: Callable[[Probe, int], None]) -> None:
        self._gate = gate
        self._ask = ask
        self._watched: dict[object, Decision | None] = {}
        self._one_at_a_time = asyncio.Lock()

    def saw(self, entry: Entry) -> bool:
        """Is this decision about what is being tried right now?"""
        if not self._watched:
            return False
        key = _key(entry)
        if key in self._watched:
            self._watched[key] = entry.decision
            return True
        return False

    async def check(self) -> HealthReport:
        """Try, once at a time. Raises DnsfwError where that is not possible."""
        async with self._one_at_a_time:
            told = plan(self._gate.policy)
            place = (address(told.no_place[0]), told.no_place[1])
            self._watched = {told.no_host: None, place: None}
            try:
                probed = await self._try(told)
                seen = (self._watched[told.no_host], self._watched[place])
            finally:
                self._watched = {}
            return HealthReport(tuple(judged(told, probed, seen, audit=self._gate.audit)))

    async def _try(self, told: Probe) -> Probed:
        reading, writing = os.pipe()
        try:
            self._ask(told, writing)
        finally:
            os.close(writing)
        try:
            said = await asyncio.wait_for(_read(reading), _PATIENCE)
            return msgspec.json.decode(said, type=Probed)
        except (OSError, TimeoutError, msgspec.MsgspecError) as error:
            raise DnsfwError("The guard could not be tried from inside.", f"What came back: {error!r}") from error


async def _read(descriptor: int) -> bytes:
    """All of it; the descriptor is closed."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 16)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        return await reader.read()
    finally:
        transport.close()


def plan(policy: Policy) -> Probe:
    """Something that the policy allows whoever asks, if there is anything, and something that it denies.

    Raises DnsfwError where it denies nothing.
    """
    host, port = next(_open_hosts(policy), ("", 0))
    no_host = f"{secrets.token_hex(8)}.dnsfw-health.example"
    number = 20_000 + secrets.randbelow(40_000)
    places = (each for each in _NOWHERE if _decided(policy, each, number) is Action.DENY)
    nowhere = next(places, None)
    if nowhere is None or resolvable(policy, no_host, None).action is not Action.DENY:
        raise DnsfwError("This policy denies nothing that could be tried.")
    return Probe(host, port, no_host, (nowhere, number))


def _open_hosts(policy: Policy) -> Iterator[tuple[str, int]]:
    """Hosts by name, over TCP, for everybody."""
    for rule in policy.rules:
        host = rule.destination
        if rule.action is not Action.ALLOW or rule.kind is not Kind.HOST or rule.who or not isinstance(host, Pattern):
            continue
        if host.deep or host.label or (rule.protos is not None and Proto.TCP not in rule.protos):
            continue
        if resolvable(policy, host.base, None).action is Action.ALLOW:
            yield host.base, min(rule.ports) if rule.ports else 443


def _decided(policy: Policy, place: str, port: int) -> Action:
    return decide(policy, Flow(Proto.TCP, _FROM, 1, address(place), port), None, ()).action


def judged(
    told: Probe, probed: Probed, seen: tuple[Decision | None, Decision | None], *, audit: bool
) -> Iterator[Check]:
    """`seen` are the gate's decisions on what must not work: the look-up, the connect."""
    none = "" if told.host else "the policy has no host by name that everybody may reach"
    yield Check(f"look up {told.host or 'an allowed host'}", probed.look_up == "NOERROR", probed.look_up, none)
    unresolved = none or ("" if probed.connect else "it has no address")
    where = f"{told.host}:{told.port}" if told.host else "an allowed host"
    yield Check(f"connect to {where}", probed.connect == "connected", probed.connect, unresolved)
    denied = [decision is not None and decision.action is Action.DENY for decision in seen]
    blocked = (audit or probed.no_look_up in ("NXDOMAIN", "REFUSED"), audit or probed.no_connect in _BLOCKED)
    names = (f"look up {told.no_host}, which is denied", f"connect to {told.no_place[0]}, which is denied")
    founds = (probed.no_look_up, probed.no_connect)
    for name, judged_so, held, found in zip(names, denied, blocked, founds, strict=True):
        unseen = "" if judged_so else ", and the gate was not asked"
        let = ", as nothing is denied in audit mode" if audit and judged_so else ""
        yield Check(name, judged_so and held, f"{found}{unseen}{let}")


def _key(entry: Entry) -> object:
    match entry.subject:
        case Query(name=name):
            return name
        case Flow(dst=dst, dport=dport):
            return (dst, dport)
        case _:
            return None
