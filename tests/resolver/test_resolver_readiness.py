"""Readiness: callbacks for descriptors on a real loop, whatever becomes of their numbers."""

from __future__ import annotations

import asyncio
import socket

from resolver.readiness import Readiness


def pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    return near, far


async def let_the_loop_run() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_only_what_is_readable_is_called_until_it_is_read() -> None:
    async def script() -> None:
        readiness, seen = Readiness(asyncio.get_running_loop()), list[bytes]()
        (quiet, quiet_far), (near, far) = pair(), pair()
        with quiet, quiet_far, near, far:
            readiness.add(quiet.fileno(), lambda: seen.append(b"quiet"))
            readiness.add(near.fileno(), lambda: seen.append(near.recv(9)))
            far.send(b"one")
            far.send(b"two")
            await let_the_loop_run()
            await let_the_loop_run()
            assert seen == [b"one", b"two"]
            readiness.forget(near.fileno())
            far.send(b"three")
            await let_the_loop_run()
            assert seen == [b"one", b"two"]
        readiness.close()

    asyncio.run(script())


def test_a_number_that_goes_to_another_socket_is_that_ones() -> None:
    async def script() -> None:
        readiness, seen = Readiness(asyncio.get_running_loop()), list[str]()
        near, far = pair()
        number = near.fileno()
        readiness.add(number, lambda: seen.append("first"))
        far.send(b"late")
        readiness.forget(number)
        near.close()
        far.close()
        near, far = pair()
        with near, far:
            assert near.fileno() == number
            readiness.add(number, lambda: seen.append(near.recv(9).decode()))
            await let_the_loop_run()
            assert seen == []
            far.send(b"second")
            await let_the_loop_run()
            assert seen == ["second"]
        readiness.close()

    asyncio.run(script())


def test_closing_leaves_nothing_with_the_loop() -> None:
    async def script() -> None:
        readiness, seen = Readiness(asyncio.get_running_loop()), list[str]()
        near, far = pair()
        with near, far:
            readiness.add(near.fileno(), lambda: seen.append("called"))
            far.send(b"x")
            readiness.close()
            await let_the_loop_run()
        assert seen == []

    asyncio.run(script())
