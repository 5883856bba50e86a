"""What the supervisor and the engine say to each other arrives whole."""

from __future__ import annotations

from dnsfw.channel import Finished, channel_pair


def test_the_longest_summary_arrives_whole() -> None:
    """Twenty denials of programs whose names are as long, and as much in need of escapes, as the kernel takes."""
    said = Finished(20, "✗ " + "\\x01" * 30_000)
    one, other = channel_pair()
    one.send(said)
    assert other.receive(1) == said
    one.close()
    other.close()
