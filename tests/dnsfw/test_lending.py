"""Connections that the engine lends to the proxy, on loopback: both ends, in one event loop each."""

from __future__ import annotations

import asyncio
import errno
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dnsfw.engine.gate import Gate
from dnsfw.engine.lending import Lender
from dnsfw.engine.requests import Conversation
from policy import Action, Address, Bindings, Flow, Proto, address
from policy.parse import parse
from proxy import messages
from proxy.sockets import BorrowingLoop


@contextmanager
def lent(may: Callable[[Address, int], bool]) -> Iterator[socket.socket]:
    """The proxy's end; the engine's is served in a thread of its own."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    loop = asyncio.new_event_loop()
    lender = Lender(ours, may)
    loop.call_soon(lender.serve)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield theirs
    finally:
        theirs.close()
        loop.call_soon_threadsafe(lender.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def said_by(there: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*there)
    said = await reader.read()
    writer.close()
    return said


def borrowed(lending: socket.socket, *there: tuple[str, int]) -> list[bytes | BaseException]:
    async def all_at_once() -> list[bytes | BaseException]:
        return await asyncio.gather(*map(said_by, there), return_exceptions=True)

    with asyncio.Runner(loop_factory=lambda: BorrowingLoop(lending)) as runner:
        return runner.run(all_at_once())


class Greeting(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(b"hello")


class Greeter(socketserver.ThreadingTCPServer):
    """Greets whoever comes."""

    request_queue_size = 64

    def __init__(self, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Greeting)


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["IPv4", "IPv6"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    with Greeter(request.param) as greeter:
        thread = threading.Thread(target=greeter.serve_forever, args=(0.01,))
        thread.start()
        host, port = greeter.server_address[:2]
        yield str(host), int(port)
        greeter.shutdown()
        thread.join()


def test_a_connection_is_lent_to_where_it_may_lead(server: tuple[str, int]) -> None:
    """Fifty at once: each gets its own."""
    with lent(lambda there, port: (str(there), port) == server) as lending:
        assert borrowed(lending, *[server] * 50) == [b"hello"] * 50


def test_and_to_nowhere_else(server: tuple[str, int]) -> None:
    with lent(lambda _, port: port != server[1]) as lending:
        (refused,) = borrowed(lending, server)
    assert isinstance(refused, OSError)
    assert refused.errno == errno.EACCES


@pytest.mark.parametrize(
    ("there", "error"),
    [(("127.0.0.1", 1), errno.ECONNREFUSED), (("localhost", 1), errno.EINVAL)],
    ids=["nobody there", "a name"],
)
def test_what_goes_wrong_is_the_answer(there: tuple[str, int], error: int) -> None:
    with lent(lambda *_: True) as lending:
        (refused,) = borrowed(lending, there)
    assert isinstance(refused, OSError)
    assert refused.errno == error


def test_nonsense_is_hung_up_on() -> None:
    with lent(lambda *_: True) as lending:
        lending.send(b"\xc1nonsense")
        lending.settimeout(5)
        assert lending.recv(100) == b""


THERE = address("192.0.2.1")
OPENED = messages.Opened(1, "10.0.0.1", 40_000, "192.0.2.1", 443)


@pytest.fixture
def gate() -> Gate:
    bindings = Bindings()
    bindings.bind("api.example", [(THERE, 60.0)], 0.0)
    return Gate(
        parse("https://api.example/v1/*\n", "p"),
        bindings,
        lambda _: None,
        lambda _: None,
        lambda: 1.0,
        inspects=lambda: True,
    )


def heard(conversation: Conversation, *said: messages.FromProxy) -> None:
    conversation.take(b"".join(map(messages.encode, said)))


def test_it_leads_where_a_client_goes_whom_the_gate_sent_to_the_proxy(gate: Gate) -> None:
    action, _ = gate.open(Flow(Proto.TCP, address("10.0.0.1"), 40_000, THERE, 443))
    assert action is Action.INSPECT
    conversation = Conversation(gate)
    heard(conversation, messages.Hello(messages.VERSION), OPENED)
    assert conversation.leads_to(THERE, 443)
    assert not conversation.leads_to(THERE, 80)
    assert not conversation.leads_to(address("192.0.2.2"), 443)
    heard(conversation, messages.Closed(1))
    assert not conversation.leads_to(THERE, 443)


def test_the_proxy_s_word_for_a_client_is_not_enough(gate: Gate) -> None:
    """Even for a host of a URL rule: nobody has asked for it."""
    conversation = Conversation(gate)
    heard(conversation, messages.Hello(messages.VERSION), OPENED)
    assert not conversation.leads_to(THERE, 443)


def test_nor_is_a_connection_that_never_was_the_proxy_s(gate: Gate) -> None:
    """Whatever the proxy says of it afterwards."""
    gate.adopt(parse("192.0.2.1\n", "p"))
    flow = Flow(Proto.TCP, address("10.0.0.1"), 40_000, THERE, 443)
    assert gate.open(flow)[0] is Action.ALLOW
    conversation = Conversation(gate)
    heard(conversation, messages.Hello(messages.VERSION), OPENED)
    assert not conversation.leads_to(THERE, 443)
    assert gate.greeted(gate.accepted(flow), None)[0].decision.action is Action.ALLOW
    heard(conversation, messages.Closed(1), OPENED)
    assert not conversation.leads_to(THERE, 443)
