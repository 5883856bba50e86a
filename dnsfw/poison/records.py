"""Records and names from text to octets, without any of the checks that a server would make.

Law: pure, and independent of the resolver that is judged by it. Source: RFC 1035 3 and 5.1, RFC 3597 5 for `\\# HEX`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

TYPES: Final = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "NULL": 10, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33,
    "DNAME": 39, "OPT": 41, "RRSIG": 46, "SVCB": 64, "HTTPS": 65, "TKEY": 249, "TSIG": 250, "IXFR": 251, "AXFR": 252,
    "ANY": 255,
}  # fmt: skip
RCODES: Final = {
    "NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5, "BADVERS": 16,
    "BADCOOKIE": 23,
}  # fmt: skip
QUESTION_AT: Final = 12
TO_QUESTION: Final = b"\xc0\x0c"


@dataclass(frozen=True, slots=True)
class Record:
    owner: bytes
    rtype: int
    ttl: int
    data: bytes

    def pack(self, asked: bytes) -> bytes:
        """In a message whose question is `asked`; an owner that is the asked name points there."""
        owner = TO_QUESTION if self.owner.lower() == asked.lower() else self.owner
        return owner + struct.pack("!HHIH", self.rtype, 1, self.ttl, len(self.data)) + self.data


def type_number(text: str) -> int:
    """`A`, `HTTPS`, `TYPE65280`, … Raises ValueError."""
    if text.startswith("TYPE"):
        return int(text.removeprefix("TYPE"))
    if text not in TYPES:
        raise ValueError(f"{text!r} is not a record type; write TYPE and its number")
    return TYPES[text]


def rcode_number(text: str) -> int:
    """Raises ValueError."""
    if text not in RCODES:
        raise ValueError(f"{text!r} is not a response code")
    return RCODES[text]


def absolute(name: str, zone: str) -> str:
    """A name as in a zone file, with its final dot. `zone` has one too."""
    if name == "@":
        return zone
    return name if name.endswith(".") else f"{name}.{zone}"


def encode_name(name: str) -> bytes:
    """An absolute or final-dot-less name in wire form. Raises ValueError for a label that is empty or too long."""
    labels = [label.encode("latin-1") for label in name.removesuffix(".").split(".")] if name != "." else []
    if any(not 0 < len(label) < 64 for label in labels):
        raise ValueError(f"{name!r} is not a name")
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def packed(text: str) -> bytes:
    """An address in network order. Raises ValueError."""
    return ip_address(text).packed


def parse(line: str, zone: str) -> Record:
    """`OWNER TTL TYPE DATA`; any type's data may be written `\\# HEX`. Raises ValueError."""
    words = line.split()
    if len(words) < 4:
        raise ValueError(f"{line!r} is not OWNER TTL TYPE DATA")
    owner, ttl, rtype, *data = words
    number = type_number(rtype)
    if data[0] == "\\#":
        octets = bytes.fromhex("".join(data[1:]))
    elif rtype in _DATA:
        octets = _DATA[rtype](data, zone)
    else:
        raise ValueError(f"data of type {rtype} must be written as \\# HEX")
    return Record(encode_name(absolute(owner, zone)), number, int(ttl), octets)


def _one_name(words: list[str], zone: str) -> bytes:
    return encode_name(absolute(words[0], zone))


def _soa(words: list[str], zone: str) -> bytes:
    """MNAME RNAME and the five numbers."""
    names = b"".join(encode_name(absolute(name, zone)) for name in words[:2])
    return names + struct.pack("!5I", *map(int, words[2:]))


def _text(words: list[str], _zone: str) -> bytes:
    octets = " ".join(words).encode()
    return bytes((len(octets),)) + octets


_DATA: Final[dict[str, Callable[[list[str], str], bytes]]] = {
    "A": lambda words, _: IPv4Address(words[0]).packed,
    "AAAA": lambda words, _: IPv6Address(words[0]).packed,
    "NS": _one_name,
    "CNAME": _one_name,
    "DNAME": _one_name,
    "PTR": _one_name,
    "MX": lambda words, zone: struct.pack("!H", int(words[0])) + _one_name(words[1:], zone),
    "SOA": _soa,
    "TXT": _text,
}
