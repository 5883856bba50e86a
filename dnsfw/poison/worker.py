"""`python -m dnsfw.poison.worker`: plays the scenarios that it is told to, in a network namespace of its own.

Law: enters the namespace and answers. The namespace has no name: it is gone with this process and its peers.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import msgspec

from dnsfw.machine.namespaces import NetworkNamespace
from dnsfw.playground.control import Message, answer_questions
from dnsfw.poison.bench import Stage, play
from dnsfw.poison.scenario import shipped
from dnsfw.poison.upstream import Place

# The documentation network (RFC 5737) is the internet here, on the loopback device.
PLACE = Place(upstream=("192.0.2.53", 53), stranger="192.0.2.66", target=("127.0.0.1", 53))
_LINKS = "link set lo up\naddr add 192.0.2.1/24 dev lo\n"


def main(target: str, run: str) -> None:
    with NetworkNamespace() as namespace:
        namespace.enter()
    subprocess.run(["ip", "-batch", "-"], input=_LINKS, check=True, text=True)
    known = {scenario.id: scenario for scenario in shipped()}
    stage = Stage(target, PLACE, run)

    async def answer(request: Message) -> Message:
        result: dict[str, Any] = msgspec.to_builtins(await play(known[request["scenario"]], stage))
        return result

    asyncio.run(answer_questions(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
