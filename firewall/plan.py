"""What a table is to do.

Law: the value, and what can't be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from policy.values import Flow

TABLE: Final = "inet dnsfw"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the table is to do. Raises ValueError for a resolver on port 53, where redirection could not be told.

    The resolver listens on `resolver_port` of 127.0.0.1 and ::1, and so does the proxy on `proxy_port`; without one,
    INSPECT denies. `exempt_uids` are the engine's and the proxy's own users where these live in the guarded namespace,
    () where they live outside. `inbound` "closed" takes nothing new but on loopback; "open"
    leaves inbound connections and their replies alone. `standing` flows (from this host's end) were up before the
    start and go on, and so do `passing` ones, which are forwarded. `lease` is in seconds: how long a UDP flow goes on
    before its next packet is judged again. With a `bridged_port`, where the resolver listens on every address, what is
    forwarded is judged too; without, nothing is forwarded that isn't published.
    """

    resolver_port: int
    queue: int
    audit: bool = False
    inbound: Literal["open", "closed"] = "closed"
    exempt_uids: tuple[int, ...] = ()
    standing: tuple[Flow, ...] = ()
    generation: int = 0
    lease: int = 30
    proxy_port: int | None = None
    bridged_port: int | None = None
    passing: tuple[Flow, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.resolver_port < 65536 or self.resolver_port == 53:
            raise ValueError(f"not a port for the resolver behind a redirection: {self.resolver_port}")
        if not 0 <= self.queue < 65536 or self.lease <= 0:
            raise ValueError(f"no such queue or lease: {self.queue}, {self.lease} s")
        if self.proxy_port is not None and (
            not 0 < self.proxy_port < 65536 or self.proxy_port in {53, self.resolver_port}
        ):
            raise ValueError(f"not a port for the proxy behind a redirection: {self.proxy_port}")
