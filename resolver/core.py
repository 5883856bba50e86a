"""The resolver without its sockets: what one message from a client comes to.

Law: sans-IO. Bytes and the time go in; a reply, silence, or a `Pending` question that somebody has to take upstream
comes out. Starts from refusing: nothing is looked up, repeated or bound before the judge has allowed this query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from policy.rules import Flag, Rule
from policy.value import Value
from policy.values import Action, Address, Flow, Proto, Query, Reason
from resolver import reply, wire
from resolver.answer import Answer, AnswerError, Rights, Wanted, interpret
from resolver.cache import AnswerCache, Template, WireCache
from resolver.exchange import Asked, Failed, Outcome, Patience
from resolver.judge import Again, Judge, Ruling
from resolver.repeats import Repeats, Told
from resolver.reply import MAX_TCP, Ede, Explanation, Reply
from resolver.upstreams import Upstream
from resolver.wire import Question, Rejection, read_query

type Bind = Callable[[str, Sequence[tuple[Address, float]], float], object]  # name; (address, seconds to live)…; now


class Refusal(StrEnum):
    """How a denied question is answered."""

    NXDOMAIN = "nxdomain"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """Times in seconds, sizes in octets."""

    upstreams: tuple[Upstream, ...]
    authorities: Path | None = None  # a file of certificates to trust for TLS upstreams; None: the system's
    patience: Patience = field(default_factory=Patience)
    refusal: Refusal = Refusal.NXDOMAIN
    binding_floor: float = 60.0  # a program may use an address for a while after its TTL ran out
    failure_ttl: float = 2.0  # at least 1 (RFC 9520 3.2)
    cache_octets: int = 4 << 20  # of answers, and as much again of ready replies
    max_exchanges: int = 512  # open at once, a socket each
    max_waiting: int = 2048  # clients' questions that wait for those
    max_waiting_each: int = 1024  # of one client address: a container can't use up what is for all
    tcp_connections: int = 128
    tcp_idle: float = 10.0  # RFC 7766 6.2.3 asks for "a few seconds"
    upstream_idle: float = 10.0  # that a connection to an upstream is kept without a question (RFC 7766 6.2.3)
    tcp_pipeline: int = 32  # questions of one connection that are worked on at once


@dataclass(slots=True)
class Counters:
    """What became of the messages. Each message to a listener counts once under `queries` and once below it."""

    queries: int = 0
    ignored: int = 0  # no reply is due: a response, or shorter than a header
    rejected: int = 0  # FORMERR, NOTIMP, REFUSED or BADVERS by the wire gate
    denied: int = 0
    cached: int = 0
    forwarded: int = 0
    joined: int = 0  # waited for a question that was already under way
    dropped: int = 0  # REFUSED for want of room: too many under way
    faults: int = 0  # our own errors, each answered with SERVFAIL
    revoked: int = 0  # of those forwarded or joined: denied after all, by a policy that changed meanwhile
    failed: int = 0  # of those forwarded or joined: SERVFAIL, no answer to be had
    filtered: int = 0  # records taken out of answers for the addresses in them
    unsent: int = 0  # replies that the socket did not take


class Pending(Value, frozen=True):
    """An allowed question that waits for its answer. `data` is the message it came in, `generation` the policy's that
    allowed it."""

    data: bytes
    question: Question
    query: Query
    asked: Asked
    rule: Rule | None
    rights: Rights
    generation: int

    @property
    def limit(self) -> int:
        return self.question.udp_size if self.query.client.proto == Proto.UDP else MAX_TCP


class _Said(Value, frozen=True):
    """A query and who it is from. `question` is None where its octets were recognised unread."""

    data: bytes
    question: Question | None
    query: Query
    told: Told

    def parsed(self) -> Question:
        question = self.question or read_query(self.data)
        if not isinstance(question, Question):
            raise TypeError("a query that the gate once let through is let through for ever")
        return question


def rights_of(rule: Rule | None) -> Rights:
    """What `rule` says of the addresses in an answer; no rule, no rights."""
    return Rights() if rule is None else Rights(Flag.PRIVATE in rule.flags, rule.within)


class Core:
    """`receive` what a client sent; if that is pending, `conclude` it when its exchange has an outcome.

    `judged` is the query that the judge was asked about last: whom to name if something breaks.
    """

    def __init__(self, config: ResolverConfig, judge: Judge, bind: Bind) -> None:
        self.counters = Counters()
        self.judged: Query | None = None
        self._config = config
        self._generation = 0
        self._judge = judge
        self._bind = bind
        self._answers = AnswerCache(config.cache_octets)
        self._replies = WireCache(config.cache_octets)
        self._repeats = Repeats()

    def policy_changed(self) -> None:
        """From now on the judge speaks for another policy: what still waits is judged again before it is answered."""
        self._generation += 1
        self._repeats.settle()

    def settle(self) -> None:
        """Tell the judge, and count, what was repeated lately. Due a second after a reply was repeated."""
        self._repeats.settle()

    def told(self, client: Flow, now: float) -> Told:
        """Who speaks from there, and what they may be told again as it is. Good for what has arrived already."""
        return self._repeats.of(self._judge.owner_of(client), now)

    def receive(self, data: bytes, client: Flow, now: float, told: Told | None = None) -> bytes | Pending | None:
        """The reply to one message; None for silence; or the question that has to go upstream."""
        self.counters.queries += 1
        self.judged = None
        template = self._replies.get(data, now) if client.proto == Proto.UDP else None
        if template is not None:
            self.judged = Query(template.query.name, template.query.qtype, client)
            said = _Said(data, None, self.judged, told or self.told(client, now))
            return self._repeat(template, said, now)
        match read_query(data):
            case None:
                self.counters.ignored += 1
                return None
            case Rejection(reply=refusal):
                self.counters.rejected += 1
                return refusal
            case question:
                self.judged = Query(question.name, question.qtype, client)
                said = _Said(data, question, self.judged, told or self.told(client, now))
                return self._follow(said, self._judge.resolve(said.query, said.told.owner), now)

    def conclude(self, pending: Pending, outcome: Outcome, now: float) -> bytes:
        """The reply to a question whose exchange is over."""
        self.judged = pending.query
        if pending.generation != self._generation:
            decision = self._judge.resolve(pending.query, self._judge.owner_of(pending.query.client)).decision
            if decision.action is not Action.ALLOW:
                self.counters.revoked += 1
                return self._deny(pending.question, decision.reason)
            pending = pending.but(rule=decision.rule, rights=rights_of(decision.rule))
        result = self._result(pending, outcome)
        lifetime = self._config.failure_ttl if isinstance(result, Failed) else result.ttl
        self._answers.put((pending.asked, pending.rights), result, lifetime, now)
        if isinstance(result, Failed):
            self.counters.failed += 1
        else:
            self.counters.filtered += result.filtered
        return self._reply(pending, result, now).data

    def overloaded(self, pending: Pending) -> bytes:
        """The reply to a question that there is no room for."""
        self.counters.dropped += 1
        explanation = Explanation(Ede.NOT_READY, "dnsfw: too many questions under way")
        return reply.failed(pending.question, wire.REFUSED, explanation)

    def _repeat(self, template: Template, said: _Said, now: float) -> bytes | Pending | None:
        ruling = self._judge.resolve(said.query, said.told.owner)
        if ruling.decision.action is not Action.ALLOW or not template.made_for(ruling.decision.rule):
            self._replies.discard(said.data)  # made under another policy
            return self._follow(said, ruling, now)
        self.counters.cached += 1
        self._bind_all(said.query.name, template.bound, template.counted_at)
        built = template.reply_to(said.data)
        if template.until >= int(now) + 1:  # still good when this second is over
            self._keep(said, built, ruling, denied=False)
        return built

    def _follow(self, said: _Said, ruling: Ruling, now: float) -> bytes | Pending | None:
        decision, question = ruling.decision, said.parsed()
        if decision.action is not Action.ALLOW:
            self.counters.denied += 1
            if ruling.silent:
                return None
            built = self._deny(question, decision.reason)
            self._keep(said, built, ruling, denied=True)
            return built
        asked = Asked(question.asked.lower(), question.qtype, question.dnssec_ok, question.checking_disabled)
        rule = decision.rule
        pending = Pending(said.data, question, said.query, asked, rule, rights_of(rule), self._generation)
        kept = self._kept(pending, now)
        if kept is None:
            return pending
        self.counters.cached += 1
        return self._repeat_kept(pending, *kept)

    def _keep(self, said: _Said, built: bytes, ruling: Ruling, *, denied: bool) -> None:
        """If the judge wants not to be asked again, the same octets get the same reply for the rest of this second."""
        if ruling.again is not None and said.query.client.proto == Proto.UDP:
            self._repeats.keep(said.told, said.data, built, partial(self._repeated, ruling.again, denied))

    def _repeated(self, again: Again, denied: bool, times: int) -> None:  # noqa: FBT001 - of a partial
        self.counters.queries += times
        if denied:
            self.counters.denied += times
        else:
            self.counters.cached += times
        again(times)

    def _repeat_kept(self, pending: Pending, kept: Answer | Failed, as_of: float) -> bytes:
        """A name that is asked for again gets a ready reply for the next time; most are asked for once."""
        built = self._reply(pending, kept, as_of)
        if isinstance(kept, Answer) and kept.ttl > 0 and built.complete and pending.query.client.proto == Proto.UDP:
            self._replies.put(pending.data, Template(pending.query, pending.rule, kept, as_of, built))
        return built.data

    def _deny(self, question: Question, reason: Reason) -> bytes:
        if self._config.refusal is Refusal.REFUSED or reason is Reason.TYPE:  # the name itself may well exist
            return reply.failed(question, wire.REFUSED, Explanation(Ede.BLOCKED, f"dnsfw: {reason}"))
        return reply.denied(question, reason)

    def _kept(self, pending: Pending, now: float) -> tuple[Answer | Failed, float] | None:
        if pending.question.qtype == wire.ANY:
            return reply.minimal_any(pending.question), now
        return self._answers.get((pending.asked, pending.rights), now)

    def _result(self, pending: Pending, outcome: Outcome) -> Answer | Failed:
        if isinstance(outcome, Failed):
            return outcome
        asked = pending.asked
        try:
            return interpret(outcome.message, Wanted(asked.name, asked.qtype, asked.dnssec_ok, pending.rights))
        except AnswerError as error:
            return Failed(Explanation(Ede.INVALID_DATA, f"dnsfw: {error}"))

    def _reply(self, pending: Pending, result: Answer | Failed, now: float) -> Reply:
        if isinstance(result, Failed):
            return Reply(reply.failed(pending.question, wire.SERVFAIL, result.explanation))
        self._bind_all(pending.query.name, result.addresses, now)
        return reply.answered(pending.question, result, pending.limit)

    def _bind_all(self, name: str, addresses: Sequence[tuple[Address, float]], now: float) -> None:
        """Before the reply leaves: a connect must never race its own look-up."""
        if addresses:
            floor = self._config.binding_floor
            self._bind(name, [(each, max(floor, ttl)) for each, ttl in addresses], now)
