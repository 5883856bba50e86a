"""What an engine of ours and its inquirer say to each other, one message a packet.

Law: the words alone; the engine has no use for what the inquirer takes to find answers.
"""

from __future__ import annotations

import msgspec

LARGEST = 1 << 13  # octets of one message


class Answer(msgspec.Struct, frozen=True):
    """What a container is called."""

    id: str
    image: str
    name: str


class Question(msgspec.Struct, frozen=True):
    """A container, and its engine where that is known."""

    id: str
    engine: str
