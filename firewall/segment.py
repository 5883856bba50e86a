"""What a TCP segment carries, and segments of our own making.

Law: pure. Packets in and out are whole IPv4 or IPv6 ones that `packet` has read without complaint; what we make has
its checksums.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from firewall.packet import Header, parse_header
from policy.value import Value

SYN, RST, ACK, URG = 0x02, 0x04, 0x10, 0x20

# ports, sequence, acknowledgement, data offset, flags, window, checksum, urgent pointer (RFC 9293 section 3.1)
_TCP: Final = Struct("!HHIIBBHHH")
_CHECKSUM_V4, _CHECKSUM_TCP = 10, 16  # where they stand in their headers
_TTL: Final = 64
NUMBERS: Final = 1 << 32  # sequence numbers come round


class Segment(Value, frozen=True):
    """`data` is what came of the octets from `sequence` on (a SYN takes one of its own before them); `cut` says that
    the packet had more than was copied. `ends` are the connection's, in octets: a key that costs less than a flow."""

    ends: bytes
    sequence: int
    acknowledged: int
    flags: int
    data: bytes
    cut: bool

    @property
    def opens(self) -> bool:
        """Is it a connection's first? (RFC 9293 section 3.5)"""
        return self.flags & (SYN | ACK) == SYN


def read_segment(packet: bytes) -> Segment:
    """Raises PacketError, though for no packet that gave a TCP flow."""
    header = parse_header(packet)
    _, _, sequence, acknowledged, offset, flags, *_ = _TCP.unpack_from(packet, header.start)
    start = header.start + (offset >> 4) * 4
    ends = header.src + header.dst + packet[header.start : header.start + 4]
    return Segment(ends, sequence, acknowledged, flags, packet[start : header.total], len(packet) < header.total)


def without_data(packet: bytes) -> bytes:
    """The same segment, empty: a SYN whose data (RFC 7413) the server will not acknowledge, so that it comes again."""
    header = parse_header(packet)
    tcp = packet[header.start : header.start + (packet[header.start + 12] >> 4) * 4]
    return _packet(packet[: header.start], tcp, header)


def reset(packet: bytes, sequence: int) -> bytes:
    """What tells a segment's receiver, who waits for this octet next, that the connection is at its end (RFC 9293
    section 3.10.7.4); any other octet's number would be asked about first (RFC 5961 section 3.2)."""
    header = parse_header(packet)
    sport, dport, _, acknowledged, *_ = _TCP.unpack_from(packet, header.start)
    tcp = _TCP.pack(sport, dport, sequence % NUMBERS, acknowledged, 5 << 4, RST | ACK, 0, 0, 0)
    if packet[0] >> 4 == 4:
        plain = bytes([0x45]) + packet[1:20]
    else:  # without extension headers
        plain = packet[:6] + bytes([header.proto, _TTL]) + packet[8:40]
    return _packet(plain, tcp, header)


def _packet(ip: bytes, tcp: bytes, header: Header) -> bytes:
    """Lengths and checksums put right (RFC 1071; RFC 8200 section 8.1 for the pseudo-header of both versions)."""
    whole = bytearray(ip + tcp)
    if whole[0] >> 4 == 4:
        whole[2:4] = len(whole).to_bytes(2)
        whole[_CHECKSUM_V4 : _CHECKSUM_V4 + 2] = bytes(2)
        whole[_CHECKSUM_V4 : _CHECKSUM_V4 + 2] = _checksum(bytes(whole[: len(ip)]))
    else:
        whole[4:6] = (len(whole) - 40).to_bytes(2)
    at = len(ip) + _CHECKSUM_TCP
    whole[at : at + 2] = bytes(2)
    pseudo = header.src + header.dst + len(tcp).to_bytes(4) + header.proto.to_bytes(4)
    whole[at : at + 2] = _checksum(pseudo + bytes(whole[len(ip) :]))
    return bytes(whole)


def _checksum(data: bytes) -> bytes:
    """The complement of the ones' complement sum of all 16-bit words, which is their number's remainder (RFC 1071)."""
    return (0xFFFF - int.from_bytes(data) % 0xFFFF).to_bytes(2)
