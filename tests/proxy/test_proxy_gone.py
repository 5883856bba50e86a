"""What becomes of a client when the gate is gone, or answers nonsense, or when what serves the client breaks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook
from mitmproxy.test.tflow import tflow

from proxy import messages
from proxy.authority import make_authority
from proxy.client import Means
from proxy.connection import ClientConnection, Streams
from proxy.messages import Asked, Course, FromGate, Judged, Refusal, Steered, Unreadable
from proxy.process import Patience, _options
from proxy.questions import GateGoneError, Questions
from proxy.tls import Tls

ASKED = Asked(1, "https", "api.example", "GET", "/")


@asynccontextmanager
async def conversation() -> AsyncIterator[tuple[Questions, socket.socket]]:
    """The proxy's end, and the gate's socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        transport, questions = await asyncio.get_running_loop().create_unix_connection(Questions, sock=ours)
        yield questions, theirs
        transport.abort()
        await questions.over


def answered(gate: socket.socket, *answers: FromGate | bytes) -> None:
    gate.sendall(b"".join(one if isinstance(one, bytes) else messages.encode(one) for one in answers))


def test_answers_are_paired_by_their_order() -> None:
    async def talk() -> list[object]:
        async with conversation() as (questions, gate):
            asked = [asyncio.create_task(questions.ask(question)) for question in (ASKED, Unreadable(1, "x"))]
            await asyncio.sleep(0)
            asked[0].cancel()  # its client is gone; its answer comes all the same
            refusal = Judged(Refusal("a", "b", "", "c"))
            answered(gate, Judged(), refusal)
            return [await asked[1] == refusal, asked[0].cancelled()]

    assert asyncio.run(talk()) == [True, True]


def hang_up(gate: socket.socket) -> None:
    gate.close()


def talk_nonsense(gate: socket.socket) -> None:
    answered(gate, b"\0\0\0\1\xc1")


def talk_too_much(gate: socket.socket) -> None:
    answered(gate, Judged(Refusal("a", "b", "", "c")), Steered(Course.TUNNEL), Judged())


@pytest.mark.parametrize("end", [hang_up, talk_nonsense])
def test_a_gate_that_is_gone_answers_nobody(end: Callable[[socket.socket], None]) -> None:
    async def ask() -> None:
        async with conversation() as (questions, gate):
            asked = asyncio.create_task(questions.ask(ASKED))
            await asyncio.sleep(0)
            end(gate)
            with pytest.raises(GateGoneError):
                await asked
            with pytest.raises(GateGoneError):
                await questions.ask(ASKED)
            await questions.over

    asyncio.run(ask())


def test_a_gate_that_answers_what_nobody_asked_is_not_listened_to() -> None:
    async def listen() -> None:
        async with conversation() as (questions, gate):
            talk_too_much(gate)
            assert await questions.over is not None
            with pytest.raises(GateGoneError):
                await questions.ask(ASKED)

    asyncio.run(listen())


@pytest.mark.parametrize("end", [hang_up, talk_nonsense])
def test_a_request_that_could_not_be_judged_has_an_answer_and_so_goes_nowhere(
    end: Callable[[socket.socket], None], tmp_path: Path
) -> None:
    """A6: mitmproxy sends on what has no answer when its hook returns, whatever became of the connection."""

    roots = tmp_path / "roots.pem"
    authority = make_authority(["api.example"], datetime.now(UTC))
    roots.write_bytes(authority.root_pem)

    async def serve() -> int:
        async with conversation() as (questions, gate), accepted() as streams:
            means = Means(_options(Patience()), questions, Tls(authority, roots))
            connection = ClientConnection(1, ("198.51.100.80", 80), streams, means)
            flow = tflow()
            hook = asyncio.create_task(connection.handle_hook(HttpRequestHeadersHook(flow)))
            await asyncio.sleep(0)
            end(gate)
            await hook
            assert flow.response is not None
            return flow.response.status_code

    assert asyncio.run(serve()) == 503


@asynccontextmanager
async def accepted() -> AsyncIterator[Streams]:
    """A client's connection, as the proxy has it."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        reader, writer = await asyncio.open_connection(sock=listener.accept()[0])
        yield reader, writer
        writer.close()
        await writer.wait_closed()
