"""What happened, counted: the source of the summary at the end.

Law: bounded and cheap to feed from a packet's path; rendering is pure text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from cachetools import LRUCache

from dnsfw.journal.records import Entry
from policy import Action, Flow, Owner, Proto, Query, Reason, Request, suggest, suggest_no_sni, suggest_passthrough

_GROUPS = 1_000  # different denials remembered; more are only counted
_SHOWN = 20
_WIDEST = 280  # characters of a line, a remedy for the longest name among them; all lines fit a message of `channel`

type _Key = tuple[object, ...]


@dataclass(slots=True)
class Denial:
    """One kind of denial: the first entry of its kind, and how often it came."""

    first: Entry
    count: int = 1


@dataclass(slots=True)
class Tally:
    """Counts since the start. `denials` forgets the least recent kind when full; `denied` counts them all. `reached`
    counts allowed flows by host, which is the name that a rule was reached by, or an address; `kinds` counts all, by
    the subject's type, the action and the reason."""

    allowed: int = 0
    denied: int = 0
    faults: int = 0
    denials: LRUCache[_Key, Denial] = field(default_factory=lambda: LRUCache(_GROUPS))
    reached: LRUCache[str, int] = field(default_factory=lambda: LRUCache(_GROUPS))
    kinds: Counter[tuple[type, Action, Reason]] = field(default_factory=Counter)

    def take(self, entry: Entry) -> None:
        """Count a decision, as often as it was taken."""
        decision = entry.decision
        self.kinds[type(entry.subject), decision.action, decision.reason] += entry.times
        if decision.action is Action.PEEK:  # what comes of it is still to be told
            return
        if entry.decision.action is not Action.DENY:
            self.allowed += entry.times
            if isinstance(entry.subject, Flow):
                host = entry.decision.name or str(entry.subject.dst)
                self.reached[host] = self.reached.get(host, 0) + 1
            return
        self.denied += entry.times
        self.faults += entry.times * (entry.decision.reason is Reason.FAULT)
        key = _kind(entry)
        seen = self.denials.get(key)
        if seen is None:
            self.denials[key] = Denial(entry, entry.times)
        else:
            seen.count += entry.times

    def most(self, count: int) -> list[Denial]:
        """The commonest kinds of denial."""
        return sorted(self.denials.values(), key=lambda denial: -denial.count)[:count]


def _kind(entry: Entry) -> _Key:
    who = "" if entry.owner is None else entry.owner.exe
    match entry.subject:
        case Query(name=name):
            rule = entry.decision.rule if entry.decision.reason is Reason.BUDGET else None
            return (name if rule is None else rule.destination, who)  # a tunnel's names differ, its rule doesn't
        case Flow(proto=proto, dst=dst, dport=dport):
            return (proto, dst, dport, entry.decision.reason, entry.seen, who)
        case Request(scheme=scheme, host=host, method=method, path=path):
            return (scheme, host, method, path, who)
        case _:
            return (entry.fault or "", who)


BECAUSE = {
    Reason.ALLOW_RULE: "a rule allows it",
    Reason.NO_RULE: "no rule names it",
    Reason.NO_BINDING: "no allowed name was resolved to this address",
    Reason.DENY_RULE: "a deny rule names it",
    Reason.PORT: "a rule allows this destination, but not this port or protocol",
    Reason.OWNER: "a rule allows this destination, but not for this process",
    Reason.NAME: "the client asked for an allowed host, but at an address that this host was not resolved to",
    Reason.NO_NAME: "the client did not say which of the address's hosts it wants",
    Reason.PATH: "a rule allows this host, but not this path",
    Reason.METHOD: "a rule allows this URL, but not this method",
    Reason.TYPE: "no program needs this DNS type",
    Reason.BUDGET: "too many different names were asked for under one wildcard",
    Reason.PINNED: "the program refused our certificate: it trusts only authorities of its own",
    Reason.UNTRUSTED: "the server can't be trusted",
    Reason.CLIENT_CERTIFICATE: "the server wants a certificate of the client, which only the program itself can show",
    Reason.PROXY: "a rule looks at its URLs, and the proxy that does that is not there just now",
    Reason.MALFORMED: "it can't be read without ambiguity",
    Reason.FAULT: "dnsfw itself failed while judging it",
}

NO_REMEDY = (
    Reason.DENY_RULE,
    Reason.NAME,
    Reason.TYPE,
    Reason.BUDGET,
    Reason.UNTRUSTED,
    Reason.PROXY,
    Reason.MALFORMED,
    Reason.FAULT,
)
_UNTOUCHED = (Reason.PINNED, Reason.CLIENT_CERTIFICATE)  # nobody may stand between


def summary(tally: Tally, trouble: list[str], *, audit: bool) -> str:
    """The lines shown at the end, without colour. `trouble` are sentences about the guard itself."""
    verb = "would have been denied" if audit else "denied"
    head = f"dnsfw: {tally.denied or 'nothing'} {verb}, {tally.allowed} allowed"
    return "\n".join(map(_fitting, [head, *_denials(tally), *(f"  ! {sentence}" for sentence in trouble)]))


def _fitting(line: str) -> str:
    """What processes, names and errors brought into a line neither steers a terminal nor goes on for ever."""
    plain = printable(line)
    return plain if len(plain) <= _WIDEST else plain[: _WIDEST - 1] + "…"


def _denials(tally: Tally) -> Iterator[str]:
    kinds = tally.most(_SHOWN)
    for denial in kinds:
        entry = denial.first
        times = f" ×{denial.count}" if denial.count > 1 else ""
        yield f"  ✗ {what(entry)}{times}  by {who(entry.owner)}"
        yield f"      {because(entry)}"
        line = remedy(entry)
        if line:
            yield f"      to allow it: {line}"
    shown = sum(denial.count for denial in kinds)
    if tally.denied > shown:
        yield f"  … and {tally.denied - shown} more; --journal FILE keeps them all"


def what(entry: Entry) -> str:
    """The subject in a person's words."""
    match entry.subject:
        case Query(name=name):
            return f"resolve {printable(name) or '.'}"
        case Request(method=method, scheme=scheme, host=host, path=path):
            return f"{method} {scheme}://{host}{path}"
        case Flow() as flow:
            asked = "" if entry.seen is None or entry.seen.name is None else f" asked for {entry.seen.name}"
            return f"{_destination(flow)}{_named(entry.names)}{asked}"
        case _:
            return "an unreadable packet"


def _destination(flow: Flow) -> str:
    host = f"[{flow.dst}]" if flow.dst.version == 6 else str(flow.dst)
    if flow.proto in (Proto.TCP, Proto.UDP):
        return f"{Proto(flow.proto).name.lower()} {host}:{flow.dport}"
    known = {Proto.ICMP: "ping", Proto.ICMPV6: "ping"}
    return f"{known.get(Proto(flow.proto)) if flow.proto in known else f'IP protocol {flow.proto} to'} {flow.dst}"


def _named(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""


def who(owner: Owner | None) -> str:
    """The process in a person's words."""
    if owner is None:
        return "an unknown process"
    arguments = " ".join(owner.argv[1:])
    shortened = arguments if len(arguments) <= 60 else arguments[:59] + "…"
    parts = (owner.exe or owner.comm or "?", shortened, f"(pid {owner.pid})")
    return printable(" ".join(part for part in parts if part))


def several(count: int, noun: str) -> str:
    """1 question, 2 questions."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """Nothing in it can steer a terminal: what a process calls itself is its own choice."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def because(entry: Entry) -> str:
    """Why, in words."""
    reason = BECAUSE.get(entry.decision.reason, str(entry.decision.reason))
    rule = entry.decision.rule
    if rule is not None:
        return f"{reason}: {rule.source.text.strip()} ({rule.source.file}:{rule.source.line})"
    return f"{reason}: {entry.fault}" if entry.fault else reason


def remedy(entry: Entry) -> str:
    """The policy line that would allow it; "" where no line would."""
    if entry.subject is None or entry.decision.reason in NO_REMEDY:
        return ""
    name, names = entry.decision.name, entry.names
    if isinstance(entry.subject, Flow):
        if entry.decision.reason in _UNTOUCHED:
            return suggest_passthrough(entry.subject, names)
        if entry.decision.reason is Reason.NO_NAME:
            return suggest_no_sni(entry.subject, names if name is None else (name,))
        if entry.seen is not None and entry.seen.name is not None:
            names = (entry.seen.name,)
    return suggest(entry.subject, entry.owner, names)
