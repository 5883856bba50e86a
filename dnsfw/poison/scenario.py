"""What a scenario is: the values that a file in `scenarios/` is read into.

Law: values and a strict loader; nothing is sent here. A key that is not below is an error, and so is a name, a type
or an address that can't be read, so that a misspelt expectation can't pass for one that holds.

Names are written as in a zone file: without a final dot they are relative to the scenario's own zone, which is
new for each run (`@` is the zone itself); with one they stand as they are.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from dnsfw.errors import UsageError
from dnsfw.poison import records

type Over = Literal["udp", "tcp"]
type Count = Annotated[int, Meta(ge=0)]
type Seconds = Annotated[float, Meta(ge=0, le=5000)]
type Level = Literal["must", "hardening"]
type Need = Literal["policy", "bindings"]


class _Value(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a scenario file."""


class Series(_Value, frozen=True):
    """Many records, or rules of a policy, from one line: `{i}` is 0, 1, …; `{a}.{b}` are its high and its low octet."""

    count: Annotated[int, Meta(ge=1, le=20_000)]
    record: str

    def lines(self) -> list[str]:
        return [self.record.format(i=i, a=i >> 8, b=i & 255, zone="{zone}") for i in range(self.count)]


type Lines = tuple[str | Series, ...]


def written_out(lines: Lines) -> list[str]:
    return [text for line in lines for text in (line.lines() if isinstance(line, Series) else [line])]


class Packet(_Value, frozen=True):
    """One message that the attacker sends; as it stands by default, the honest empty answer to the question.

    `from`: the upstream itself, another port of it, another address, or an ICMP error about the question.
    `flood`: sent 65,536 times by the off-path spoofer, who does not see the question's case: with every id to the
    right port, with one guessed id to every port, or with every id to one guessed port. `raw` is the whole message in
    hex instead; `{id}`, `{question}` and `{name}` stand for what was asked. `cookie` is the resolver's half and the
    upstream's: the "right" ones, "other" if the upstream gives another half of its own, "wrong" if the resolver's is.
    """

    origin: Literal["upstream", "port", "address", "icmp"] = msgspec.field(name="from", default="upstream")
    id: Literal["right", "wrong"] = "right"
    question: str | None = None  # another name in the question section
    qtype: str | None = None
    qclass: int = 1
    questions: Count = 1
    case: Literal["same", "swapped", "lower"] = "same"
    response: bool = True  # QR
    opcode: Annotated[int, Meta(ge=0, le=15)] = 0
    truncated: bool = False
    rcode: str = "NOERROR"
    cookie: Literal["right", "other", "wrong"] | None = None
    answer: Lines = ()
    authority: Lines = ()
    additional: Lines = ()
    raw: str | None = None
    cut: Count = 0  # octets taken off the end
    pad: Count = 0  # zero octets put behind the end
    times: Annotated[int, Meta(ge=1, le=1000)] = 1
    delay: Seconds = 0.0
    flood: Literal["ids", "ports", "one-port"] | None = None

    @property
    def forged(self) -> bool:
        """Whether it takes a raw socket or an address of another host to send it."""
        return self.flood is not None or self.origin in ("address", "icmp")


class Reaction(_Value, frozen=True):
    """What the upstream does about a question; the first one that fits is taken. `nth` counts those that fit `name`,
    `type` and `over`. `loop` gives the question back to the resolver under test; `hang_up` closes a TCP connection."""

    name: str | None = None
    type: str | None = None
    over: Over | None = None
    nth: Annotated[int, Meta(ge=1)] | None = None
    send: tuple[Packet, ...] = ()
    loop: bool = False
    hang_up: bool = False


class Reply(_Value, frozen=True):
    """What a client must see. Every reply must carry the client's own id and question besides, spelt as it asked.

    `silent`: no reply may come. `optional`: none need come.
    """

    silent: bool = False
    optional: bool = False
    rcode: str | tuple[str, ...] | None = None
    addresses: tuple[str, ...] | None = None  # all A and AAAA of the answer section, no more and no fewer
    absent: tuple[str, ...] = ()  # addresses that are nowhere in the message
    lacks: tuple[str, ...] = ()  # octets in hex that are nowhere in it
    records: Count | None = None  # in the answer section
    truncated: bool | None = None
    ede: int | None = None
    ttl_at_most: Count | None = None
    size_at_most: Count | None = None
    within: Seconds | None = None


class Ask(_Value, frozen=True):
    """A client's question, `times` of it at once (`{i}` in the name counts them).

    Over TCP, asks in a row with the same `connection` go out together in one segment, or `pieces` octets at a time.
    `idle` opens so many silent connections first. `raw` is the whole message in hex, with `{id}` and `{question}`.
    `expect` is for every forwarder, `harden` what dnsfw promises on top: a peer without it lacks something, no more.
    """

    name: str = "www"
    type: str = "A"
    times: Annotated[int, Meta(ge=1, le=5000)] = 1
    over: Over = "udp"
    edns: Annotated[int, Meta(ge=0, le=65535)] | None = None
    do: bool = False
    raw: str | None = None
    connection: str | None = None
    pieces: Count = 0
    idle: Annotated[int, Meta(ge=0, le=400)] = 0
    pause: Seconds = 0.0  # before it
    wait: Seconds = 6.0
    expect: Reply = Reply()
    harden: Reply = Reply()


class Sent(_Value, frozen=True):
    """What must have reached the upstream."""

    questions: Count | None = None
    at_most: Count | None = None
    at_least: Count | None = None
    never: tuple[str, ...] = ()
    over_tcp_at_least: Count | None = None
    ports_at_least: Count | None = None
    ids_at_least: Count | None = None
    client_ids_at_most: Count | None = None
    edns_at_most: Count | None = None
    cookies_at_least: Count | None = None  # questions with the upstream's half of a cookie
    mixed_case: bool = False


class FlowCheck(_Value, frozen=True):
    """What the firewall's gate says of a new flow, `after` seconds later."""

    to: str
    verdict: Literal["allow", "deny"]
    port: int = 443
    proto: Literal["tcp", "udp", "icmp"] = "tcp"
    after: Seconds = 0.0


class Bound(_Value, frozen=True):
    """What must have become of the bindings of addresses to names; a target that has none is not asked."""

    to: dict[str, tuple[str, ...]] = {}  # a name's addresses, no more and no fewer
    never: tuple[str, ...] = ()  # addresses bound to no name at all
    at_most: Count | None = None  # bindings altogether
    flows: tuple[FlowCheck, ...] = ()


class Scenario(_Value, frozen=True):
    """One attack. `attack` is the line of the catalogue (docs/poisoning.md), `rule` the RFC section or class of CVE.

    `level`: what every forwarder owes, or what dnsfw promises beyond that. `needs`: what a target must know of to be
    judged at all. In `policy`, `{zone}` is the scenario's zone.
    """

    title: str
    attack: Annotated[int, Meta(ge=1, le=21)]
    rule: str
    level: Level = "must"
    needs: tuple[Need, ...] = ()
    policy: Lines = ("*.{zone}:443",)
    upstream: tuple[Reaction, ...] = ()
    ask: tuple[Ask, ...] = ()
    sent: Sent = Sent()
    bound: Bound = Bound()
    alive: bool = True  # ask one honest question at the end, which must be answered
    id: str = ""

    @property
    def forged(self) -> bool:
        return any(packet.forged for reaction in self.upstream for packet in reaction.send)


def load(text: str, name: str) -> Scenario:
    """The scenario in a file's text. Raises UsageError, with the place in the file."""
    try:
        read = msgspec.convert(tomllib.loads(text), Scenario)
        scenario = msgspec.structs.replace(read, id=name)
        _check(scenario)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise UsageError(
            f"The scenario {name} can't be used: {error}", "docs/poisoning.md describes the form."
        ) from None
    return scenario


def shipped() -> list[Scenario]:
    """All scenarios of this package, in the order of the catalogue."""
    found = [load(file.read_text(encoding="utf-8"), file.name.removesuffix(".toml")) for file in _files()]
    return sorted(found, key=lambda scenario: (scenario.attack, scenario.id))


def _files() -> list[Traversable]:
    return [file for file in files("dnsfw.poison").joinpath("scenarios").iterdir() if file.name.endswith(".toml")]


def _check(scenario: Scenario) -> None:
    """Raises ValueError for what could only be found out while it is played, or would never be."""
    if scenario.id:
        records.encode_name(scenario.id)
    if not (scenario.ask or scenario.bound.flows):
        raise ValueError("nobody asks anything")
    for reaction in scenario.upstream:
        if reaction.type is not None:
            records.type_number(reaction.type)
        for packet in reaction.send:
            _check_packet(packet)
    for ask in scenario.ask:
        records.type_number(ask.type)
        _check_reply(ask.expect)
        _check_reply(ask.harden)
    for text in (*scenario.bound.never, *(each for group in scenario.bound.to.values() for each in group)):
        records.packed(text)


def _check_packet(packet: Packet) -> None:
    records.rcode_number(packet.rcode)
    for lines in (packet.answer, packet.authority, packet.additional):
        for line in lines:
            for text in line.lines()[:1] if isinstance(line, Series) else [line]:
                records.parse(text, "zone.example.")


def _check_reply(reply: Reply) -> None:
    for rcode in (reply.rcode,) if isinstance(reply.rcode, str) else reply.rcode or ():
        records.rcode_number(rcode)
    for text in (*(reply.addresses or ()), *reply.absent):
        records.packed(text)
    for text in reply.lacks:
        bytes.fromhex(text)
    judged = msgspec.structs.asdict(reply)
    if reply.silent and any(judged[name] not in (None, (), False) for name in judged if name != "silent"):
        raise ValueError("a reply that must not come can't be expected to say anything")
