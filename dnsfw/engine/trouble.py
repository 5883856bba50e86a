"""What a person should know of the guard itself.

Law: pure but for what it reads of the engine's parts; each fact is one sentence, with the remedy where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dnsfw.channel import Inheritance
from dnsfw.engine.conversations import Conversations
from dnsfw.engine.links import Links
from dnsfw.engine.packets import Packets
from dnsfw.journal.tally import several
from dnsfw.journal.writer import Journal
from resolver.server import Resolver
from resolver.upstreams import Upstream


@dataclass(frozen=True, slots=True)
class Troubled:
    """Whatever of an engine can be in trouble."""

    packets: Packets
    proxies: Conversations
    resolver: Resolver
    upstreams: tuple[Upstream, ...]
    journal: Journal
    inheritance: Inheritance
    links: Links | None
    audit: bool

    def sentences(self) -> list[str]:
        """As it is now."""
        links = self.links.trouble() if self.links is not None else []
        parts = (
            self.packets.trouble(),
            links,
            self._deaths(),
            self.proxies.trouble(),
            self._resolver(),
            self._journal(),
        )
        return [sentence for part in parts for sentence in part]

    def _deaths(self) -> Iterator[str]:
        death = self.inheritance.last_death
        if death is not None:
            times = several(self.inheritance.deaths, "time")
            meanwhile = "nothing was judged" if self.audit else "nothing new could leave"
            yield f"the engine died {times}, the last one of {death.reason}; {meanwhile} until it was back"

    def _resolver(self) -> Iterator[str]:
        counters = self.resolver.counters
        if counters.failed:
            servers = ", ".join(str(upstream) for upstream in self.upstreams)
            questions = several(counters.failed, "DNS question")
            yield f"{questions} got no answer from {servers}; name another with --upstream"
        if counters.filtered:
            records = several(counters.filtered, "DNS record")
            yield f"{records} removed: a public name must not have a private address"

    def _journal(self) -> Iterator[str]:
        if self.journal.lost:
            records = several(self.journal.lost, "journal record")
            yield f"{records} lost: {self.journal.trouble or 'too many at once'}"
