"""The gate's end of the conversation with the proxy.

Law: messages in, the gate's decisions out, each in words for a person too. Who asks is the proxy, which reads foreign
bytes: what it says of a connection is believed once, at its opening, and everything it can make us hold is bounded. A
question that can't be judged is answered with a refusal.
"""

from __future__ import annotations

import asyncio
import socket

from dnsfw.engine.gate import Connection, Gate
from dnsfw.engine.lending import Lender
from dnsfw.journal.records import Entry
from dnsfw.journal.tally import because, remedy, what
from firewall.clienthello import ClientHelloError, read_client_hello
from policy import Action, Address, Decision, Flow, Proto, Reason, Request, address, unverified
from proxy import messages
from proxy.messages import Asked, Course, Greeted, Judged, MessageError, Question, Refusal, Steered, Trouble, Unreadable

_MOST_CONNECTIONS = 4_096  # at a time; the proxy takes fewer
_CHUNK = 1 << 16
_TROUBLES = {
    Trouble.PINNED: Reason.PINNED,
    Trouble.UNTRUSTED: Reason.UNTRUSTED,
    Trouble.CLIENT_CERTIFICATE: Reason.CLIENT_CERTIFICATE,
    Trouble.FAULT: Reason.FAULT,
}


async def answer(
    gate: Gate, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lending: socket.socket | None = None
) -> None:
    """One conversation, from the proxy's connecting to its end. Whoever says what can't be understood is hung up on.
    By `lending` the proxy gets its connections to servers."""
    conversation = Conversation(gate)
    lender = None if lending is None else Lender(lending, conversation.leads_to)
    try:
        if lender is not None:
            lender.serve()
        while data := await reader.read(_CHUNK):
            writer.write(conversation.take(data))
            await writer.drain()
    except MessageError as error:
        gate.fault(error, None)
    except ConnectionError:
        pass  # it died; the supervisor knows
    finally:
        writer.close()
        if lender is not None:
            lender.close()


class Conversation:
    """What was said so far."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._frames = messages.Frames()
        self._connections: dict[int, Connection] = {}
        self._sent: dict[int, tuple[Address, int]] = {}  # where those go that we know of without the proxy's word
        self._begun = False

    def take(self, data: bytes) -> bytes:
        """The answers to what is whole now. Raises MessageError."""
        answers = (self._hear(messages.read_from_proxy(body)) for body in self._frames.take(data))
        return b"".join(messages.encode(answer) for answer in answers if answer is not None)

    def leads_to(self, there: Address, port: int) -> bool:
        """Does a client of the proxy go there, whose connection the gate has sent to the proxy?"""
        return (there, port) in self._sent.values()

    def _hear(self, message: messages.FromProxy) -> messages.FromGate | None:
        if self._begun == isinstance(message, messages.Hello):
            raise MessageError(f"out of turn: {message}")
        match message:
            case messages.Hello(version=version):
                if version != messages.VERSION:
                    raise MessageError(f"a proxy that speaks version {version}")
                self._begun = True
            case messages.Opened(connection=number):
                if len(self._connections) >= _MOST_CONNECTIONS or number in self._connections:
                    raise MessageError(f"connection {number} besides {len(self._connections)}")
                flow = _flow(message)
                if self._gate.sent_to_proxy(flow):
                    self._sent[number] = flow.dst, flow.dport
                self._connections[number] = self._gate.accepted(flow)
            case messages.Closed(connection=number):
                self._connections.pop(number, None)
                self._sent.pop(number, None)
            case messages.Reported(connection=number, trouble=trouble, detail=detail):
                self._gate.failed(self._connection(number), _TROUBLES[trouble], detail)
            case Greeted() | Asked() | Unreadable():
                return self._answer(message)
        return None

    def _connection(self, number: int) -> Connection:
        try:
            return self._connections[number]
        except KeyError:
            raise MessageError(f"of a connection that isn't open: {number}") from None

    def _answer(self, question: Question) -> messages.FromGate:
        connection = self._connection(question.connection)
        try:
            return self._judged(connection, question)
        except Exception as error:  # noqa: BLE001 - A6: whatever it is, that question is denied, and it is told
            self._gate.fault(error, connection.flow)
            refusal = _refusal(Entry(connection.flow, _FAULT, None, ()))
            return Steered(Course.REFUSE, refusal=refusal) if isinstance(question, Greeted) else Judged(refusal)

    def _judged(self, connection: Connection, question: Question) -> Steered | Judged:
        match question:
            case Greeted(hello=hello):
                return self._steered(connection, question.connection, hello)
            case Asked():
                return Judged(self._request(connection, question))
            case Unreadable(problem=problem):
                return Judged(_unless_allowed(self._gate.failed(connection, Reason.MALFORMED, problem)))

    def _steered(self, connection: Connection, number: int, hello: bytes) -> Steered:
        name = None
        try:
            name = _host_of(hello)
        except ClientHelloError as error:
            entry = self._gate.failed(connection, Reason.MALFORMED, str(error))
        else:
            entry, self._connections[number] = self._gate.greeted(connection, name)
        if entry.decision.action is Action.INSPECT and name is not None:
            return Steered(Course.DECRYPT, name, unverified(self._gate.policy, connection.flow, name))
        refusal = _unless_allowed(entry)
        return Steered(Course.TUNNEL if refusal is None else Course.REFUSE, name or "", refusal=refusal)

    def _request(self, connection: Connection, asked: Asked) -> Refusal | None:
        request = Request(connection.flow, asked.scheme, asked.host, asked.method, asked.path)
        return _unless_allowed(self._gate.request(connection, request))


_FAULT = Decision(Action.DENY, Reason.FAULT, None, None)


def _host_of(hello: bytes) -> str | None:
    """Raises ClientHelloError."""
    greeting = read_client_hello(hello)
    if greeting is None:
        raise ClientHelloError("not a whole ClientHello")
    return greeting.name


def _flow(opened: messages.Opened) -> Flow:
    """Raises MessageError."""
    try:
        return Flow(Proto.TCP, address(opened.src), opened.sport, address(opened.dst), opened.dport)
    except ValueError as error:
        raise MessageError(str(error)) from error


def _unless_allowed(entry: Entry) -> Refusal | None:
    return _refusal(entry) if entry.decision.action is Action.DENY else None


def _refusal(entry: Entry) -> Refusal:
    return Refusal(what(entry), because(entry), remedy(entry), entry.decision.reason.value)
