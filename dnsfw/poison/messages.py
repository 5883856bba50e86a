"""The attacker's messages, made for the question that they answer.

Law: pure. Anything at all can be built here, the malformed above all; nothing is checked.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dnsfw.poison.records import QUESTION_AT, Record, absolute, encode_name, parse, rcode_number, type_number
from dnsfw.poison.scenario import Lines, Over, Packet, written_out

type Peer = tuple[str, int]

_HEADER = struct.Struct("!6H")
_OPT = struct.Struct("!BHHBBHH")
_COOKIE, _OURS, _THEIRS = 10, 8, bytes(range(16))  # the option, octets of the resolver's half, the upstream's half
_QR, _TC, _RD, _RA = 0x8000, 0x0200, 0x0100, 0x0080


@dataclass(frozen=True, slots=True)
class Arrived:
    """A question as it reached the upstream. `name` keeps its case, in wire form; `edns` is None without an OPT;
    `cookie` is the data of its COOKIE option (RFC 7873 4)."""

    data: bytes
    peer: Peer
    over: Over
    name: bytes
    qtype: int
    edns: int | None
    cookie: bytes = b""

    @property
    def id(self) -> int:
        return int.from_bytes(self.data[:2])

    @property
    def section(self) -> bytes:
        return self.name + struct.pack("!HH", self.qtype, 1)

    @property
    def text(self) -> str:
        """The name in lower case with its final dot."""
        labels, at = [], 0
        while length := self.name[at]:
            labels.append(self.name[at + 1 : at + 1 + length].decode("latin-1"))
            at += 1 + length
        return ".".join(labels).lower() + "."


def read_question(data: bytes, peer: Peer, over: Over) -> Arrived | None:
    """What a resolver sent upstream; None for what is no question."""
    try:
        end = QUESTION_AT
        while length := data[end]:
            end += 1 + length
        end += 1
        (qtype,) = struct.unpack_from("!H", data, end)
        opt = data[end + 4 :]
        edns = struct.unpack_from("!H", opt, 3)[0] if opt[:3] == b"\x00\x00\x29" else None
        cookie = _cookie(opt[_OPT.size :])
    except (IndexError, struct.error):
        return None
    return Arrived(data, peer, over, data[QUESTION_AT:end], qtype, edns, cookie)


def _cookie(options: bytes) -> bytes:
    while options:
        code, size = struct.unpack_from("!HH", options)
        if code == _COOKIE:
            return options[4 : 4 + size]
        options = options[4 + size :]
    return b""


def compose(packet: Packet, arrived: Arrived, zone: str, ident: int | None = None) -> bytes:
    """The octets of `packet` for this question, under id `ident` if that is given."""
    if ident is None:
        ident = arrived.id if packet.id == "right" else arrived.id ^ 0x5A5A
    if packet.raw is not None:
        return fill(packet.raw, ident, arrived.section, arrived.name)
    name = _case(packet, arrived.name if packet.question is None else encode_name(absolute(packet.question, zone)))
    qtype = arrived.qtype if packet.qtype is None else type_number(packet.qtype)
    flags = (_QR if packet.response else 0) | (_TC if packet.truncated else 0) | _RD | _RA
    flags |= packet.opcode << 11 | rcode_number(packet.rcode) & 15
    sections = [_section(lines, zone) for lines in (packet.answer, packet.authority, packet.additional)]
    opt = _opt(packet, arrived)
    counts = (packet.questions, len(sections[0]), len(sections[1]), len(sections[2]) + bool(opt))
    question = (name + struct.pack("!HH", qtype, packet.qclass)) * packet.questions
    body = b"".join(record.pack(name if packet.questions else b"") for section in sections for record in section)
    message = _HEADER.pack(ident, flags, *counts) + question + body + opt
    return message[: len(message) - packet.cut] + bytes(packet.pad)


def _opt(packet: Packet, arrived: Arrived) -> bytes:
    """An OPT record, if it takes one to say what is to be said (RFC 6891 6.1.3, RFC 7873 4)."""
    high = rcode_number(packet.rcode) >> 4
    cookie = {
        None: b"",
        "right": arrived.cookie[:_OURS] + _THEIRS,
        "other": arrived.cookie[:_OURS] + _THEIRS[::-1],
        "wrong": bytes(_OURS) + _THEIRS,
    }[packet.cookie]
    options = struct.pack("!HH", _COOKIE, len(cookie)) + cookie if cookie else b""
    return _OPT.pack(0, 41, 1232, high, 0, 0, len(options)) + options if high or options else b""


def fill(text: str, ident: int, section: bytes, name: bytes) -> bytes:
    """Octets from hex with places for the id, the question and its name; the word `2x3f` is 3f3f."""
    for place, octets in (("{id}", ident.to_bytes(2)), ("{question}", section), ("{name}", name)):
        text = text.replace(place, octets.hex())
    out = bytearray()
    for word in text.split():
        count, times, rest = word.partition("x")
        out += bytes.fromhex(rest) * int(count) if times else bytes.fromhex(word)
    return bytes(out)


def _case(packet: Packet, name: bytes) -> bytes:
    if packet.flood is not None or packet.case == "lower":
        return name.lower()  # length octets are below 64, so that these leave them alone
    return name.swapcase() if packet.case == "swapped" else name


def _section(lines: Lines, zone: str) -> list[Record]:
    return [parse(text, zone) for text in written_out(lines)]


def honest(arrived: Arrived) -> bytes:
    """What the upstream says where no reaction is written for: one address, or that there is nothing of this type."""
    data = {1: b"\xc6\x33\x64\x01", 28: bytes.fromhex("20010db8000000000000000000000001")}.get(arrived.qtype)
    answer = b"" if data is None else b"\xc0\x0c" + struct.pack("!HHIH", arrived.qtype, 1, 60, len(data)) + data
    head = _HEADER.pack(arrived.id, _QR | _RD | _RA, 1, int(data is not None), 0, 0)
    return head + arrived.section + answer
