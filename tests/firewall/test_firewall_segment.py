"""What a segment carries, and the segments that we make of it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.packet import COPIED, parse_header, parse_packet
from firewall.segment import ACK, RST, SYN, read_segment, reset, without_data
from tests.firewall.packets import PUSH_ACK, SYN_ACK, sums_up, tcp
from tests.firewall.street import BOTH

OPTIONS = bytes([2, 4, 5, 180, 1, 1, 4, 2])


@BOTH
def test_a_segment_is_read(version: int) -> None:
    segment = read_segment(tcp(7, PUSH_ACK, b"data", version=version, options=OPTIONS))
    assert (segment.sequence, segment.acknowledged, segment.data, segment.cut) == (7, 1, b"data", False)
    assert not segment.opens
    assert read_segment(tcp(7, SYN, version=version)).opens
    assert not read_segment(tcp(7, SYN_ACK, version=version)).opens
    assert read_segment(tcp(7, PUSH_ACK, bytes(COPIED), version=version)[:COPIED]).cut


@BOTH
def test_the_ends_are_those_of_one_connection_alone(version: int) -> None:
    one = read_segment(tcp(7, SYN, version=version)).ends
    assert one == read_segment(tcp(9, PUSH_ACK, b"x", version=version, options=OPTIONS)).ends
    assert one != read_segment(tcp(7, SYN, version=version, port=80)).ends


def checked(packet: bytes) -> bool:
    header = parse_header(packet)
    payload = packet[header.start :]
    if packet[0] >> 4 == 4 and not sums_up(packet[: header.start]):
        return False
    return sums_up(header.src + header.dst + struct.pack("!II", len(payload), header.proto) + payload)


@given(st.sampled_from([4, 6]), st.integers(0, 2**32 - 1), st.binary(max_size=60), st.sampled_from([b"", OPTIONS]))
def test_what_we_make_is_whole_and_of_the_same_connection(
    version: int, sequence: int, data: bytes, options: bytes
) -> None:
    opening = tcp(sequence, SYN, data, version=version, options=options)
    bare = without_data(opening)
    assert parse_packet(bare) == parse_packet(opening)
    assert checked(bare)
    assert (read_segment(bare).data, read_segment(bare).sequence, read_segment(bare).flags) == (b"", sequence, SYN)
    assert bare.endswith(options)
    spoken = tcp(sequence, PUSH_ACK, data, version=version, options=options)
    ended = reset(spoken, sequence + 2**32)
    assert parse_packet(ended) == parse_packet(spoken)
    assert checked(ended)
    told = read_segment(ended)
    assert (told.sequence, told.acknowledged, told.flags, told.data) == (sequence, 1, RST | ACK, b"")


def test_a_reset_has_none_of_a_packet_s_options() -> None:
    plain = tcp(7, PUSH_ACK, b"x")
    routed = bytes([0x46]) + plain[1:2] + struct.pack("!H", len(plain) + 4) + plain[4:20] + bytes(4) + plain[20:]
    assert reset(routed, 7) == reset(plain, 7)
    six = tcp(7, PUSH_ACK, b"x", version=6)
    extended = six[:4] + struct.pack("!HB", len(six) - 32, 60) + six[7:40] + bytes([6, 0]) + bytes(6) + six[40:]
    assert reset(extended, 7) == reset(six, 7)


@pytest.mark.parametrize("words", [b"\0\1", b"\xff\xff\0\1"])
def test_the_oracle_of_checksums_tells_right_from_wrong(words: bytes) -> None:
    assert not sums_up(words)
