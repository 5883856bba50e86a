"""The rules behind PEEK and INSPECT: connections that are open, and not yet trusted.

Law: pure text, like `ruleset`, which says where these chains stand. A peeked connection sends nothing but empty
segments until its first data was judged; an inspected one reaches the proxy and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from firewall.marks import LISTENING, MASK, OTHERS, STATE, Mark, connection_mark

NOT_SYN: Final = "meta l4proto tcp tcp flags & (syn | ack) != syn"
# Lengths of a TCP header in words: 8 is one with timestamps, which nearly all have (RFC 7323); then by RFC 9293.
_HEADERS: Final = (8, *(words for words in range(5, 16) if words != 8))

# QUIC's Initial packets name a host, so no lease is for them: a socket may ask for another one next. The first bit is
# set in all long headers; versions 1 and 2 (RFC 9000 section 17.2, RFC 9369 section 3.1).
QUIC: Final = (
    "udp dport 443 @th,64,1 1",
    "meta l4proto udp @th,64,1 1 @th,72,32 { 0x1, 0x6b3343cf }",
    # One send may be several datagrams (UDP_SEGMENT, udp(7)), all but the last of one size, and only the first is seen
    # here. An Initial's has 1200 octets at least (RFC 9000 section 14.1). Tunnels send such too, and never QUIC.
    "udp dport != { 4789, 6081, 8472 } udp length >= 2400",
)


def opened(state: Mark, generations: Collection[int]) -> str:
    """How to tell a connection that one of these generations gave that state."""
    marks = [f"{connection_mark(state, generation):#x}" for generation in generations]
    return f"ct mark & {MASK:#x} " + (f"== {marks[0]}" if len(marks) == 1 else f"{{ {', '.join(marks)} }}")


def kept(generations: Collection[int]) -> Iterator[str]:
    """For `known`: what goes on of connections that these generations have opened."""
    for state, chain in ((Mark.PEEK, "jump empty"), (LISTENING, "jump empty"), (Mark.INSPECT, "goto pass")):
        yield f"{opened(state, generations)} {NOT_SYN} {chain}"


def remembering(generation: int) -> Iterator[tuple[str, list[str]]]:
    """Chains, by name, that `enforce` sends new ones to."""
    for state, name in ((Mark.PEEK, "peeked"), (LISTENING, "heard"), (Mark.INSPECT, "inspected")):
        yield name, [f"ct mark set ct mark & {OTHERS:#x} | {connection_mark(state, generation):#x}", "goto clear"]


def empty(then: str = "goto pass") -> Iterator[str]:
    """Segments that carry nothing: acknowledgements, and the end of a connection. The whole length is its headers'."""
    for words in _HEADERS:
        yield f"ip hdrlength 5 ip length {20 + 4 * words} tcp doff {words} {then}"
        yield f"ip6 nexthdr tcp ip6 length {4 * words} tcp doff {words} {then}"


def hearing() -> str:
    """On the prerouting hook: what a server sends whose client's words were let through. A router's error isn't its."""
    return f"ct mark & {STATE:#x} == {LISTENING:#x} meta l4proto tcp ct direction reply goto answered"


def answered(generations: Collection[int]) -> Iterator[str]:
    """It has their words if it says something to them: an acknowledgement may be of what came before."""
    yield from empty("return")
    for generation in generations:
        allowed = f"ct mark set ct mark & {OTHERS:#x} | {connection_mark(Mark.ALLOW, generation):#x}"
        yield f"{opened(LISTENING, [generation])} {allowed}"


def peek(*, audit: bool) -> Iterator[str]:
    """Only a TCP connection has an opening that its data waits behind."""
    yield "meta l4proto tcp goto peeked"
    yield f"goto {'allow' if audit else 'refuse'}"


def inspect(proxy_port: int, *, audit: bool) -> Iterator[str]:
    """What goes elsewhere escaped `steer`: its connection is older than our table, or somebody else translated it."""
    yield f"tcp dport {proxy_port} fib daddr type local goto inspected"
    yield "goto clear" if audit else "counter name escaped goto refuse"


def reaching(proxy_port: int) -> tuple[str, list[str]]:
    """For the input hook: how to tell packets to the proxy, and a chain that takes those which were judged INSPECT."""
    rules = [
        "ct direction reply accept",  # a client elsewhere may have that port by chance
        f"ct mark & {STATE:#x} == {Mark.INSPECT:#x} accept",
        'iif "lo" counter name direct goto refuse',
        "counter name direct drop",
    ]
    return f"tcp dport {proxy_port} goto proxy", rules
