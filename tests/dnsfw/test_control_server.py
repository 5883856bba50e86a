"""The control socket: who is answered, and what the slow, the silent and the nonsensical can't do."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsfw.control import SOCKET, framing
from dnsfw.control import messages as m
from dnsfw.control.access import Access
from dnsfw.control.client import Guarded, RefusedError, SilentError, guards
from dnsfw.control.server import Bounds, ControlServer, listen
from dnsfw.errors import DnsfwError

OWN = os.getuid()
TOKEN = "0123456789abcdef"
LOOKS = (m.Status(), m.Health(), m.Flows(), m.Bindings(), m.Metrics())
CHANGES = (m.Reload(), m.Stop(), m.Sudo(on=True))


@pytest.mark.parametrize("question", [*LOOKS, *CHANGES], ids=lambda question: type(question).__name__)
@pytest.mark.parametrize(
    ("starter", "given_token", "peer", "token", "looks", "changes"),
    [
        (1000, TOKEN, 0, "", True, True),
        (1000, TOKEN, 1000, TOKEN, True, True),
        (1000, TOKEN, 1000, "", True, False),
        (1000, TOKEN, 1000, TOKEN[:-1] + "x", True, False),
        (1000, TOKEN, 1000, TOKEN + "x", True, False),
        (1000, "", 1000, "", True, False),  # no token equals no other
        (1000, "short", 1000, "short", True, False),
        (1000, TOKEN, 1001, TOKEN, False, False),
        (0, TOKEN, 1000, TOKEN, False, False),
        (65534, TOKEN, 65534, TOKEN, False, False),  # whoever has no name here
        (-1, TOKEN, -1, TOKEN, False, False),  # no identity equals no other
    ],
    ids=["root", "starter with token", "starter", "wrong token", "longer token", "no tokens", "short tokens",
         "stranger with token", "root's guard", "unmapped", "missing"],
)  # fmt: skip
def test_who_may_ask_what(
    question: m.Question, starter: int, given_token: str, peer: int, token: str, *, looks: bool, changes: bool
) -> None:
    """S6."""
    refused = Access(starter, given_token).refusal(question, peer, token)
    assert (refused is None) == (looks if question in LOOKS else changes)


@given(st.text(max_size=40), st.text(max_size=40))
def test_only_the_token_itself_proves_anything(given_token: str, token: str) -> None:
    may = Access(1000, given_token).refusal(m.Stop(), 1000, token) is None
    assert may == (token == given_token and len(token) >= 16)


@given(st.binary(max_size=200))
def test_octets_are_a_question_or_not_understood(body: bytes) -> None:
    try:
        question, token = framing.read_question(body)
    except framing.NotUnderstoodError:
        return
    assert framing.read_question(framing.ask(question, token)[framing.PREFIX :]) == (question, token)


@pytest.mark.parametrize("question", [*LOOKS, *CHANGES])
def test_a_question_arrives_as_it_was_asked(question: m.Question) -> None:
    framed = framing.ask(question, "t")
    assert framing.length(framed[: framing.PREFIX], framing.LARGEST_QUESTION) == len(framed) - framing.PREFIX
    assert framing.read_question(framed[framing.PREFIX :]) == (question, "t")


def test_another_version_is_told_so() -> None:
    body = framing.ask(m.Status())[framing.PREFIX :].replace(b'"v":1', b'"v":2')
    with pytest.raises(framing.NotUnderstoodError, match="version 2"):
        framing.read_question(body)


async def answering(question: m.Question) -> m.Answer:
    if isinstance(question, m.Reload):
        raise DnsfwError("It can't.", "Do this.")
    return m.MetricsReport("x" * 2_000_000) if isinstance(question, m.Metrics) else m.Accepted()


@asynccontextmanager
async def serving(directory: Path, access: Access = Access(OWN, TOKEN)) -> AsyncIterator[ControlServer]:  # noqa: B008
    server = ControlServer(access, answering, Bounds(asking=0.3, taking=0.3))
    await server.serve(listen(directory, OWN))
    yield server
    server.close()


def within[T](seconds: float, ask: Callable[[], T]) -> asyncio.Future[T]:
    """A blocking client, off the server's loop."""
    return asyncio.wait_for(asyncio.to_thread(ask), seconds)  # type: ignore[return-value]  # a coroutine, as good


def test_a_question_is_answered_and_a_fault_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path):
            guard = Guarded(tmp_path)
            assert await within(5, lambda: guard.ask(m.Stop(), TOKEN)) == m.Accepted()
            large = await within(5, lambda: guard.ask(m.Metrics()))
            assert isinstance(large, m.MetricsReport)
            assert len(large.text) == 2_000_000
            with pytest.raises(RefusedError, match=r"It can't\.") as refused:
                await within(5, lambda: guard.ask(m.Reload(), TOKEN))
            assert refused.value.remedy == "Do this."

    asyncio.run(scenario())


def test_the_socket_is_for_root_and_the_starter(tmp_path: Path) -> None:
    with closing(listen(tmp_path, OWN)), closing(listen(tmp_path, OWN)):  # the second in a dead one's place
        place = (tmp_path / SOCKET).stat()
    assert (stat.S_IMODE(place.st_mode), place.st_uid) == (0o600, OWN)


@pytest.mark.kernel("root")
def test_a_socket_that_is_called_like_a_guard_is_none() -> None:
    """To who may not list the guards, the kernel lists all sockets, by names that whoever binds one chooses."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        root, elsewhere = Path(directory, "guards"), Path(directory, "else")
        folders = [root / "up-1", elsewhere / f"\n0: {root}/up-2", elsewhere / f"\r {root}/up-3", elsewhere / "\n\n"]
        for folder in folders:
            folder.mkdir(parents=True)
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(folder / SOCKET))
        for folder in (Path(directory), root):
            folder.chmod(0o711)
        os.seteuid(65534)
        stack.callback(os.seteuid, 0)
        assert [guard.name for guard in guards(root)] == ["up-1"]


def test_nobody_there_is_told(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(SilentError, match="does not answer"):
            Guarded(tmp_path).ask(m.Status())
        listen(tmp_path, OWN).close()


NONSENSE = {
    "nothing": b"",
    "half a length": b"\0\0",
    "half a question": framing.ask(m.Status())[:-3],
    "too long": b"\xff\xff\xff\xff" + b"x" * 10_000,
    "empty": b"\0\0\0\0",
    "not JSON": b"\0\0\0\4abcd",
    "deep": (2000).to_bytes(4) + b"[" * 2000,
    "a stranger's protocol": b"GET / HTTP/1.1\r\n\r\n",
    "no such question": (28).to_bytes(4) + b'{"v":1,"ask":{"type":"nay"}}',
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE.keys())
def test_a_client_that_talks_nonsense_is_cut_off(tmp_path: Path, said: bytes) -> None:
    """R8."""

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(tmp_path / SOCKET))
            sock.sendall(said)
            heard = b""
            try:
                while part := sock.recv(1 << 16):
                    heard += part
            except ConnectionResetError:
                pass
            return heard

    async def scenario() -> None:
        async with serving(tmp_path) as server:
            heard = await within(10, talk)
            assert heard == b"" or isinstance(framing.read_answer(heard[framing.PREFIX :]), m.Refused)
            assert await within(5, lambda: Guarded(tmp_path).ask(m.Stop(), TOKEN)) == m.Accepted()
            assert server.turned_away == 0

    asyncio.run(scenario())


def test_the_silent_and_those_who_do_not_read_hold_nobody_up_for_long(tmp_path: Path) -> None:
    """R8: more of them than there are places, and the loop is never busy with them."""
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(40)]

    async def scenario() -> None:
        async with serving(tmp_path) as server:
            for number, sock in enumerate(crowd):
                sock.connect(str(tmp_path / SOCKET))
                if number % 2:
                    sock.send(framing.ask(m.Metrics()))  # and never takes the two megabytes
            while server.turned_away < len(crowd) - 8:
                await asyncio.sleep(0.01)
            guard, tries = Guarded(tmp_path), 0
            while tries < 1000:
                tries += 1
                try:
                    assert await within(10, lambda: guard.ask(m.Stop(), TOKEN)) == m.Accepted()
                    break
                except SilentError:
                    await asyncio.sleep(0.05)
            assert tries > 1  # or there was no crowd

    asyncio.run(asyncio.wait_for(scenario(), 20))
    for sock in crowd:
        sock.close()
